//! Reads the nodes of a blob and validates its structure on the way (Devicetree Specification §5).
//!
//! The specification limits names to 31 characters, but more than half of Linux's own arm64
//! devicetrees have longer ones (e.g. `snps,dis-tx-ipgap-linecheck-quirk`), so names are limited to
//! [`MAX_NAME`] instead. The depth of the tree and the length of paths are limited as well. Without
//! these limits, time and memory wouldn't be proportional to the size of the blob, because every
//! fact carries a path.

use alloc::vec::Vec;

/// Maximum depth of nested nodes, including the root. Linux has the same limit.
pub const MAX_DEPTH: usize = 64;
/// Maximum length of a node's full path, in bytes.
pub const MAX_PATH: usize = 1024;
/// Maximum length of a name, in bytes.
pub(super) const MAX_NAME: usize = 255;

const HEADER_BYTES: usize = 40;
pub(super) const MAGIC: u32 = 0xd00d_feed;
pub(super) const VERSION: u32 = 17;
const TOKEN_BYTES: usize = 4;
pub(super) const BEGIN_NODE: u32 = 1;
pub(super) const END_NODE: u32 = 2;
pub(super) const PROP: u32 = 3;
const NOP: u32 = 4;
pub(super) const END: u32 = 9;

/// A node of a blob.
pub(super) struct BlobNode<'a> {
    /// Index of the parent, which precedes the node.
    pub(super) parent: Option<usize>,
    pub(super) name: &'a str,
    /// Properties in the blob's order.
    pub(super) properties: Vec<Property<'a>>,
}

/// A property of a node.
#[derive(Clone, Copy)]
pub(super) struct Property<'a> {
    pub(super) name: &'a str,
    pub(super) value: &'a [u8],
}

/// Returns the nodes of the devicetree in `input`, in its order. Bytes that follow the devicetree
/// are ignored.
pub(super) fn nodes(input: &[u8]) -> Result<Vec<BlobNode<'_>>, DtbError> {
    let header = Header::read(input)?;
    let blob = input.get(..header.total).ok_or(DtbErrorKind::NoHeader.at(0))?;
    let mut walk = Walk {
        blob,
        strings: header.strings,
        end: header.structure.1,
        open: Vec::new(),
        nodes: Vec::new(),
    };
    walk.run(header.structure.0)?;
    Ok(walk.nodes)
}

/// The required fields of the header, with byte ranges as (start, end).
struct Header {
    total: usize,
    structure: (usize, usize),
    strings: (usize, usize),
}

impl Header {
    fn read(input: &[u8]) -> Result<Self, DtbError> {
        if input.len() < HEADER_BYTES {
            return Err(DtbErrorKind::NoHeader.at(0));
        }
        let field = |offset| cell(input, offset).unwrap_or_default();
        if field(0) != MAGIC {
            return Err(DtbErrorKind::NoMagic.at(0));
        }
        let (version, compatible_back_to) = (field(20), field(24));
        if version < VERSION || compatible_back_to > VERSION {
            return Err(DtbErrorKind::Version(version).at(20));
        }
        let total = index(field(4));
        if total < HEADER_BYTES || total > input.len() {
            return Err(DtbErrorKind::Truncated(field(4)).at(4));
        }
        let block = |name, start, size| {
            let (from, length) = (index(field(start)), index(field(size)));
            match from.checked_add(length) {
                Some(to) if from >= HEADER_BYTES && to <= total => Ok((from, to)),
                _ => Err(DtbErrorKind::Block(name).at(start)),
            }
        };
        let structure = block("structure", 8, 36)?;
        if structure.0 % TOKEN_BYTES != 0 {
            return Err(DtbErrorKind::Block("structure").at(8));
        }
        Ok(Self { total, structure, strings: block("strings", 12, 32)? })
    }
}

/// A walk over the structure block, token by token.
struct Walk<'a> {
    blob: &'a [u8],
    strings: (usize, usize),
    /// End of the structure block.
    end: usize,
    /// Each open node's index and the length of its path, starting with the root.
    open: Vec<(usize, usize)>,
    nodes: Vec<BlobNode<'a>>,
}

impl<'a> Walk<'a> {
    fn run(&mut self, start: usize) -> Result<(), DtbError> {
        let mut offset = start;
        // Properties must precede subnodes, and both must be inside a node.
        let mut properties_may_follow = false;
        loop {
            let token = self.token(offset)?;
            let after = offset + TOKEN_BYTES;
            offset = match token {
                NOP if !self.open.is_empty() => after,
                BEGIN_NODE => {
                    properties_may_follow = true;
                    self.open_node(after)?
                }
                PROP if properties_may_follow => self.property(offset)?,
                END_NODE if !self.open.is_empty() => {
                    properties_may_follow = false;
                    self.open.pop();
                    if self.open.is_empty() {
                        return self.ends_at(after);
                    }
                    after
                }
                other => return Err(DtbErrorKind::Token(other).at(offset)),
            };
        }
    }

    fn ends_at(&self, offset: usize) -> Result<(), DtbError> {
        let mut offset = offset;
        loop {
            match self.token(offset)? {
                NOP => offset += TOKEN_BYTES,
                END => return Ok(()),
                other => return Err(DtbErrorKind::Token(other).at(offset)),
            }
        }
    }

    /// Adds the node whose name is at `offset`; returns the offset of the next token.
    fn open_node(&mut self, offset: usize) -> Result<usize, DtbError> {
        let name = self.name(offset, self.end)?;
        if self.open.is_empty() != name.is_empty() || name.contains('/') {
            return Err(DtbErrorKind::Name.at(offset));
        }
        let parent = self.open.last().copied();
        let path = parent.map_or(0, |(_, path)| path) + 1 + name.len();
        if path > MAX_PATH {
            return Err(DtbErrorKind::Path.at(offset));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(DtbErrorKind::Depth.at(offset));
        }
        self.open.push((self.nodes.len(), path));
        let parent = parent.map(|(index, _)| index);
        self.nodes.push(BlobNode { parent, name, properties: Vec::new() });
        Ok((offset + name.len() + 1).next_multiple_of(TOKEN_BYTES))
    }

    /// Adds the property whose token is at `offset`; returns the offset of the next token.
    fn property(&mut self, offset: usize) -> Result<usize, DtbError> {
        let ends = DtbErrorKind::Ends.at(offset);
        let length = cell(self.blob, offset + 4).ok_or(ends)?;
        let name = cell(self.blob, offset + 8).ok_or(ends)?;
        let start = offset + 12;
        let end = start.checked_add(index(length)).filter(|&end| end <= self.end);
        let value = end.and_then(|end| self.blob.get(start..end));
        let value = value.ok_or(DtbErrorKind::Property(length).at(offset))?;
        let name =
            self.strings.0.checked_add(index(name)).ok_or(DtbErrorKind::Name.at(offset + 8))?;
        let name = self.name(name, self.strings.1)?;
        // Properties precede subnodes, so they belong to the last node.
        if let Some(node) = self.nodes.last_mut() {
            node.properties.push(Property { name, value });
        }
        Ok((start + value.len()).next_multiple_of(TOKEN_BYTES))
    }

    /// Returns the name at `offset`, which must end before `limit`.
    fn name(&self, offset: usize, limit: usize) -> Result<&'a str, DtbError> {
        let error = DtbErrorKind::Name.at(offset);
        let bytes = self.blob.get(offset..limit).ok_or(error)?;
        let length = bytes.iter().take(MAX_NAME + 1).position(|&byte| byte == 0).ok_or(error)?;
        core::str::from_utf8(bytes.get(..length).ok_or(error)?).map_err(|_| error)
    }

    fn token(&self, offset: usize) -> Result<u32, DtbError> {
        let ends = DtbErrorKind::Ends.at(offset);
        if offset.checked_add(TOKEN_BYTES).is_none_or(|end| end > self.end) {
            return Err(ends);
        }
        cell(self.blob, offset).ok_or(ends)
    }
}

fn cell(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// Converts a 32-bit offset to an index.
fn index(offset: u32) -> usize {
    offset as usize
}

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
