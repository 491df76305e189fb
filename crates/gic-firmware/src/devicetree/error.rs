//! Reasons for which a blob cannot be read at all.

/// The blob is no devicetree that can be walked. The producer of the blob is at fault, or its
/// transport.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("byte {offset:#x}: {kind}")]
pub struct DtbError {
    /// Bytes from the blob's start.
    pub offset: usize,
    /// Defect at that offset.
    pub kind: DtbErrorKind,
}

/// Defects that make a blob unreadable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DtbErrorKind {
    /// Not even a header.
    #[error("the input is too short for a devicetree header")]
    NoHeader,
    /// Something else than a devicetree.
    #[error("the input does not start with a devicetree's magic number")]
    NoMagic,
    /// A format version that is not compatible with 17.
    #[error("devicetree format {0} is not supported")]
    Version(u32),
    /// The header promises more bytes than there are.
    #[error("the header states {0} bytes, more than there are")]
    Truncated(u32),
    /// The structure or strings block lies outside of the blob, or is misaligned.
    #[error("the {0} block does not lie within the input")]
    Block(&'static str),
    /// The structure block holds no token here, or one that may not stand here.
    #[error("{0:#x} is no token that may stand here")]
    Token(u32),
    /// The structure block ends too early.
    #[error("the structure block ends too early")]
    Ends,
    /// A node or property name is not terminated, not UTF-8, longer than 255 bytes, or a node name
    /// is empty or holds a slash.
    #[error("this is no name")]
    Name,
    /// A property reaches past the structure block.
    #[error("a property of {0} bytes reaches past its block")]
    Property(u32),
    /// More than [`MAX_DEPTH`](super::MAX_DEPTH) nodes within each other.
    #[error("nodes are nested too deeply")]
    Depth,
    /// A node's full path is longer than [`MAX_PATH`](super::MAX_PATH) bytes.
    #[error("a node's path is too long")]
    Path,
}

impl DtbErrorKind {
    /// This, met at `offset`.
    pub(super) const fn at(self, offset: usize) -> DtbError {
        DtbError { offset, kind: self }
    }
}
