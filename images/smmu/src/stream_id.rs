//! Numbers of streams and of address spaces.

use core::fmt;

/// A device's number at the SMMU.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct StreamId(pub u32);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// An address space's number in the SMMU's caches (ASID).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpaceId(pub u16);
