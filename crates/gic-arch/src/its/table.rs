//! Table entries in memory. The architecture defines the format only for the first level of
//! two-level tables.

use bitfield_struct::bitfield;

/// First-level table entry (IHI 0069 §5.2), written by software: the address of a second-level
/// page.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Level1Entry {
    #[bits(12)]
    __: u16,
    /// Bits 51:12 of the page's address. Bits below the page size are RES0.
    #[bits(40)]
    pub address_51_12: u64,
    #[bits(11)]
    __: u16,
    /// The entry points to a page.
    pub valid: bool,
}

impl Level1Entry {
    /// Returns the physical address of the page, which is 4 KiB aligned.
    pub const fn address(self) -> u64 {
        self.address_51_12() << 12
    }

    /// Returns the entry with the page at `address`. Bits 11:0 and 63:52 are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        self.with_address_51_12((address >> 12) & 0xff_ffff_ffff)
    }
}
