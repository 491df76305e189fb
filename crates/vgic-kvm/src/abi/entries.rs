//! ITS table entries in KVM's ITS ABI revision 0
//! (`Documentation/virt/kvm/devices/arm-vgic-its.rst`): eight bytes each, little-endian.

use bitfield_struct::bitfield;

/// Entry in the device table, indexed by DeviceID.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DeviceEntry {
    /// Number of EventID bits, minus one.
    #[bits(5)]
    pub event_bits_minus_one: u8,
    /// Bits 51:8 of the interrupt translation table's address.
    #[bits(44)]
    pub itt_address_51_8: u64,
    /// Distance to the next valid entry, saturating; 0 marks the last entry.
    #[bits(14)]
    pub next: u16,
    /// The device is mapped.
    pub valid: bool,
}

impl DeviceEntry {
    /// Largest representable distance.
    pub const NEXT_MAX: u16 = (1 << 14) - 1;

    /// Returns the physical address of the interrupt translation table.
    pub const fn itt_address(self) -> u64 {
        self.itt_address_51_8() << 8
    }

    /// Sets the address of the interrupt translation table. Bits 7:0 and 63:52 of `address` are
    /// dropped.
    pub const fn with_itt_address(self, address: u64) -> Self {
        self.with_itt_address_51_8((address >> 8) & 0xfff_ffff_ffff)
    }
}

/// Entry in a device's interrupt translation table, indexed by EventID.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TranslationEntry {
    /// The collection's number.
    pub collection: u16,
    /// INTID of the LPI, or 0 if the event is unmapped.
    pub intid: u32,
    /// Distance to the next valid entry, saturating; 0 marks the last entry.
    pub next: u16,
}

impl TranslationEntry {
    /// Largest representable distance.
    pub const NEXT_MAX: u16 = u16::MAX;
}

/// Entry in the collection table, an unordered list that ends at the first invalid entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CollectionEntry {
    /// The collection's number.
    pub collection: u16,
    /// `GICR_TYPER.Processor_Number` of the target redistributor, or [`UNMAPPED`](Self::UNMAPPED).
    #[bits(36)]
    pub target: u64,
    #[bits(11)]
    __: u16,
    /// The entry is in use.
    pub valid: bool,
}

impl CollectionEntry {
    /// Low 32 bits of the target for an unmapped collection that is in use by events.
    pub const UNMAPPED: u32 = u32::MAX;
}
