//! Errors from reading a blob.

/// A blob that is not a valid devicetree. Either the producer or the transport of the blob is at
/// fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("byte {offset:#x}: {kind}")]
pub struct DtbError {
    /// Offset in bytes from the start of the blob.
    pub offset: usize,
    /// Defect at that offset.
    pub kind: DtbErrorKind,
}

/// Defects that make a blob unreadable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DtbErrorKind {
    /// The input is shorter than a header.
    #[error("the input is too short for a devicetree header")]
    NoHeader,
    /// The input is not a devicetree.
    #[error("the input does not start with a devicetree's magic number")]
    NoMagic,
    /// The format version is not compatible with 17.
    #[error("devicetree format {0} is not supported")]
    Version(u32),
    /// The header states more bytes than the input has.
    #[error("the header states {0} bytes, more than the input has")]
    Truncated(u32),
    /// The structure or strings block is misaligned or lies outside the blob.
    #[error("the {0} block does not lie within the input")]
    Block(&'static str),
    /// The structure block contains an unknown token, or a token that is not allowed at this
    /// offset.
    #[error("{0:#x} is not a token that is allowed here")]
    Token(u32),
    /// The structure block ends too early.
    #[error("the structure block ends too early")]
    Ends,
    /// A node or property name is not terminated, not UTF-8 or longer than 255 bytes, or a node
    /// name is empty or contains a slash.
    #[error("a name is malformed")]
    Name,
    /// A property reaches past the structure block.
    #[error("a property of {0} bytes reaches past its block")]
    Property(u32),
    /// More than [`MAX_DEPTH`](super::MAX_DEPTH) levels of nodes are nested.
    #[error("nodes are nested too deeply")]
    Depth,
    /// A node's full path is longer than [`MAX_PATH`](super::MAX_PATH) bytes.
    #[error("a node's path is too long")]
    Path,
}

impl DtbErrorKind {
    /// Returns the error for this defect at `offset`.
    pub(super) const fn at(self, offset: usize) -> DtbError {
        DtbError { offset, kind: self }
    }
}
