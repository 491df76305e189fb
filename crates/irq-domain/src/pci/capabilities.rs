//! A function's capability list.

use super::header::{HEADER_TYPE, MULTI_FUNCTION, STATUS, STATUS_CAPABILITIES, TYPE_CARDBUS};
use super::{ConfigSpace, PciError};
use core::fmt;

/// Offset of the list pointer, in header types 0 and 1 and in CardBus bridges.
const POINTER: u16 = 0x34;
const POINTER_CARDBUS: u16 = 0x14;
/// Lowest possible capability offset, right after the standard header.
const FIRST: u16 = 0x40;
const END: u16 = 0x100;
/// Maximum number of capabilities that fit in configuration space. A longer list must be circular.
const MOST: u8 = 48;

/// A list entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Capability {
    /// The capability ID.
    pub id: u8,
    /// Offset in configuration space.
    pub offset: u16,
}

/// Iterates over a function's capabilities in list order. The iteration stops at a pointer outside
/// the capabilities' range, and after 48 entries in case the list is circular.
///
/// Context: task; may sleep.
pub fn capabilities(config: &dyn ConfigSpace) -> CapabilityIter<'_> {
    let present = config.read16(STATUS) & STATUS_CAPABILITIES != 0;
    let pointer = match config.read8(HEADER_TYPE) & !MULTI_FUNCTION {
        TYPE_CARDBUS => POINTER_CARDBUS,
        _ => POINTER,
    };
    let next = if present { config.read8(pointer) } else { 0 };
    CapabilityIter { config, next, left: MOST }
}

/// Iterator over a function's [`capabilities`].
pub struct CapabilityIter<'a> {
    config: &'a dyn ConfigSpace,
    next: u8,
    left: u8,
}

impl Iterator for CapabilityIter<'_> {
    type Item = Capability;

    fn next(&mut self) -> Option<Capability> {
        let offset = u16::from(self.next & !3);
        if offset < FIRST {
            return None;
        }
        self.left = self.left.checked_sub(1)?;
        let id = self.config.read8(offset);
        // A removed function reads as all ones.
        if id == 0xff {
            return None;
        }
        self.next = self.config.read8(offset + 1);
        Some(Capability { id, offset })
    }
}

impl fmt::Debug for CapabilityIter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CapabilityIter")
            .field("next", &self.next)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Returns the offset of the first capability with this ID.
pub(super) fn find(config: &dyn ConfigSpace, id: u8) -> Result<u16, PciError> {
    let found = capabilities(config).find(|capability| capability.id == id);
    found.map(|capability| capability.offset).ok_or(PciError::NoCapability { id })
}

/// Checks that a capability with `length` bytes fits at `offset`.
pub(super) fn check_length(id: u8, offset: u16, length: u16) -> Result<(), PciError> {
    if length <= END.saturating_sub(offset) {
        Ok(())
    } else {
        Err(PciError::CapabilityTooLong { id, offset })
    }
}
