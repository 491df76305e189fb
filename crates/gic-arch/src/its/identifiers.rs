//! Identifiers that only ITS commands know.

use core::fmt;

/// Alignment of an interrupt translation table in bytes.
pub const ITT_ALIGNMENT: u64 = 256;

/// A collection: the ITS's name for "delivered at that redistributor".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct CollectionId(u16);

impl CollectionId {
    /// The collection with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Debug for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CollectionId({})", self.0)
    }
}

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Redistributor as a command names it: bits 51:16 of a word. Its meaning depends on
/// `GITS_TYPER.PTA`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RdBase(u64);

impl RdBase {
    const MASK: u64 = 0xf_ffff_ffff;

    /// `PTA` = 1: by the physical address of RD_base. Bits 15:0 and 63:52 are dropped.
    pub const fn from_address(address: u64) -> Self {
        Self((address >> 16) & Self::MASK)
    }

    /// `PTA` = 0: by `GICR_TYPER.Processor_Number`.
    pub const fn from_processor_number(number: u16) -> Self {
        Self(number as u64)
    }

    /// From the 36-bit field; higher bits are dropped.
    pub const fn from_field(field: u64) -> Self {
        Self(field & Self::MASK)
    }

    /// The 36-bit field.
    pub const fn field(self) -> u64 {
        self.0
    }

    /// `PTA` = 1: the physical address of RD_base.
    pub const fn address(self) -> u64 {
        self.0 << 16
    }

    /// `PTA` = 0: the processor number; `None` if the field has more than 16 significant bits.
    pub const fn processor_number(self) -> Option<u16> {
        if self.0 <= 0xffff {
            let bytes = self.0.to_le_bytes();
            Some(u16::from_le_bytes([bytes[0], bytes[1]]))
        } else {
            None
        }
    }
}

impl fmt::Debug for RdBase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RdBase({:#x})", self.0)
    }
}
