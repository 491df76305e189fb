//! Formats of the interpreter's table entries. The architecture leaves entry formats to the
//! implementation.

use bitfield_struct::bitfield;

/// An entry of the device table.
#[bitfield(u64)]
pub(crate) struct DeviceEntry {
    #[bits(5)]
    pub(crate) event_bits_minus_one: u8,
    #[bits(44)]
    itt_address_51_8: u64,
    #[bits(14)]
    __: u16,
    pub(crate) valid: bool,
}

impl DeviceEntry {
    pub(crate) const fn itt_address(self) -> u64 {
        self.itt_address_51_8() << 8
    }

    pub(crate) const fn with_itt_address(self, address: u64) -> Self {
        self.with_itt_address_51_8((address >> 8) & 0xfff_ffff_ffff)
    }
}

/// An entry of a device's interrupt translation table. The entry is zero if the event is not
/// mapped.
#[bitfield(u64)]
pub(crate) struct TranslationEntry {
    /// The collection, or the vPE of a virtual LPI.
    pub(crate) collection: u16,
    pub(crate) intid: u32,
    #[bits(15)]
    __: u16,
    pub(crate) is_virtual: bool,
}
