//! Table entries in memory. The architecture fixes only the first level of two-level tables.

use bitfield_struct::bitfield;

/// An entry of a first-level table (IHI 0069 §5.2): where the second-level page is. Written by
/// software.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct Level1Entry {
    #[bits(12)]
    __: u16,
    /// Bits 51:12 of the page's address; those below the page size are RES0.
    #[bits(40)]
    pub address_51_12: u64,
    #[bits(11)]
    __: u16,
    /// There is a page.
    pub valid: bool,
}

impl Level1Entry {
    /// Physical address of the page, 4 KiB aligned.
    pub const fn address(self) -> u64 {
        self.address_51_12() << 12
    }

    /// With the page at `address`; bits 11:0 and 63:52 are dropped.
    pub const fn with_address(self, address: u64) -> Self {
        self.with_address_51_12((address >> 12) & 0xff_ffff_ffff)
    }
}
