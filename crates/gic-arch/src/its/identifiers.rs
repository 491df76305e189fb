//! Identifiers that are only used in ITS commands.

use core::fmt;

/// Alignment of an interrupt translation table in bytes.
pub const ITT_ALIGNMENT: u64 = 256;

/// A collection, through which events refer to their target redistributor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct CollectionId(u16);

impl CollectionId {
    /// Creates the collection with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Returns the number.
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

/// A virtual processing element (vPE): a vCPU, as the ITS and its redistributors know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct VpeId(u16);

impl VpeId {
    /// Creates the vPE with this number.
    pub const fn new(number: u16) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Decodes bits 47:32 of a command's word.
    pub(super) const fn from_word(word: u64) -> Self {
        let bytes = word.to_le_bytes();
        Self(u16::from_le_bytes([bytes[4], bytes[5]]))
    }

    /// Encodes bits 47:32 of a command's word.
    pub(super) const fn word(self) -> u64 {
        (self.0 as u64) << 32
    }
}

/// A redistributor as encoded in a command, in bits 51:16 of a word. `GITS_TYPER.PTA` determines
/// whether the field is an address or a processor number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct RdBase(u64);

impl RdBase {
    const MASK: u64 = 0xf_ffff_ffff;

    /// Encodes a redistributor's RD_base address, for `PTA` = 1. Bits 15:0 and 63:52 are dropped.
    pub const fn from_address(address: u64) -> Self {
        Self((address >> 16) & Self::MASK)
    }

    /// Encodes a redistributor's `GICR_TYPER.Processor_Number`, for `PTA` = 0.
    pub const fn from_processor_number(number: u16) -> Self {
        Self(number as u64)
    }

    /// Creates the value from the 36-bit field. Higher bits are dropped.
    pub const fn from_field(field: u64) -> Self {
        Self(field & Self::MASK)
    }

    /// Returns the 36-bit field.
    pub const fn field(self) -> u64 {
        self.0
    }

    /// Returns the physical address of RD_base, for `PTA` = 1.
    pub const fn address(self) -> u64 {
        self.0 << 16
    }

    /// Returns the processor number, for `PTA` = 0, or `None` if the field has more than 16
    /// significant bits.
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
