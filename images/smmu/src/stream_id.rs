//! StreamIDs and address space numbers.

use core::fmt;

/// StreamID: the number that identifies a device to the SMMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// Number of an address space in the SMMU's caches (ASID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceId(pub u16);
