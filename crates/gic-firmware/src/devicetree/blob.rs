//! Validates the structure of a blob (Devicetree Specification §5). A blob must pass before its
//! nodes are walked.
//!
//! `dtoolkit` also checks blobs, but refuses node and property names longer than the
//! specification's 31 characters. More than half of Linux's own arm64 devicetrees have such names
//! (e.g. `snps,dis-tx-ipgap-linecheck-quirk`). So we use the unchecked walk of `dtoolkit`, and this
//! module checks everything that the walk relies on. This module also limits the depth of the tree
//! and the lengths of names and paths. Without these limits, time and memory wouldn't be
//! proportional to the size of the blob, because finding a child means skipping over its siblings'
//! subtrees, and every fact carries a path.

use super::error::{DtbError, DtbErrorKind};
use dtoolkit::fdt::Fdt;

/// Maximum depth of nested nodes, including the root. Linux has the same limit.
pub const MAX_DEPTH: usize = 64;
/// Maximum length of a node's full path, in bytes.
pub const MAX_PATH: usize = 1024;
/// Maximum length of a name, in bytes.
pub(super) const MAX_NAME: usize = 255;

const HEADER_BYTES: usize = 40;
const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const TOKEN_BYTES: usize = 4;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// Returns the devicetree in `input` after validation, so that it is safe to walk. Bytes that
/// follow the devicetree are ignored.
pub(super) fn open(input: &[u8]) -> Result<Fdt<'_>, DtbError> {
    let header = Header::read(input)?;
    let blob = input.get(..header.total).ok_or(DtbErrorKind::NoHeader.at(0))?;
    Skeleton {
        blob,
        strings: header.strings,
        end: header.structure.1,
        depth: 0,
        path: [0; MAX_DEPTH],
    }
    .check(header.structure.0)?;
    Ok(Fdt::new_unchecked(blob))
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
struct Skeleton<'a> {
    blob: &'a [u8],
    strings: (usize, usize),
    /// End of the structure block.
    end: usize,
    depth: usize,
    /// Length of the path of each open node, starting with the root.
    path: [usize; MAX_DEPTH],
}

impl<'a> Skeleton<'a> {
    fn check(&mut self, start: usize) -> Result<(), DtbError> {
        let mut offset = start;
        // Properties must precede subnodes, and both must be inside a node.
        let mut properties_may_follow = false;
        loop {
            let token = self.token(offset)?;
            let after = offset + TOKEN_BYTES;
            offset = match token {
                NOP if self.depth > 0 => after,
                BEGIN_NODE => {
                    properties_may_follow = true;
                    self.open_node(after)?
                }
                PROP if properties_may_follow => self.property(offset)?,
                END_NODE if self.depth > 0 => {
                    properties_may_follow = false;
                    self.depth -= 1;
                    if self.depth == 0 {
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

    /// Checks a node's name at `offset`; returns the offset of the next token.
    fn open_node(&mut self, offset: usize) -> Result<usize, DtbError> {
        let name = self.name(offset, self.end)?;
        if (self.depth == 0) != name.is_empty() || name.contains('/') {
            return Err(DtbErrorKind::Name.at(offset));
        }
        let parent =
            self.depth.checked_sub(1).and_then(|depth| self.path.get(depth)).copied().unwrap_or(0);
        let path = parent + 1 + name.len();
        if path > MAX_PATH {
            return Err(DtbErrorKind::Path.at(offset));
        }
        *self.path.get_mut(self.depth).ok_or(DtbErrorKind::Depth.at(offset))? = path;
        self.depth += 1;
        Ok((offset + name.len() + 1).next_multiple_of(TOKEN_BYTES))
    }

    /// Checks the property whose token is at `offset`; returns the offset of the next token.
    fn property(&self, offset: usize) -> Result<usize, DtbError> {
        let ends = DtbErrorKind::Ends.at(offset);
        let length = cell(self.blob, offset + 4).ok_or(ends)?;
        let name = cell(self.blob, offset + 8).ok_or(ends)?;
        let value = offset + 12;
        let end = value.checked_add(index(length)).filter(|&end| end <= self.end);
        let end = end.ok_or(DtbErrorKind::Property(length).at(offset))?;
        let name =
            self.strings.0.checked_add(index(name)).ok_or(DtbErrorKind::Name.at(offset + 8))?;
        self.name(name, self.strings.1)?;
        Ok(end.next_multiple_of(TOKEN_BYTES))
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
