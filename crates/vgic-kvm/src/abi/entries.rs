//! Entries of an ITS's tables by KVM's ITS ABI revision 0
//! (`Documentation/virt/kvm/devices/arm-vgic-its.rst`): eight bytes each, little-endian.

use bitfield_struct::bitfield;

/// A device's entry, at index DeviceID.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct DeviceEntry {
    /// EventID bits, minus one.
    #[bits(5)]
    pub event_bits_minus_one: u8,
    /// Bits 51:8 of the interrupt translation table's address.
    #[bits(44)]
    pub itt_address_51_8: u64,
    /// Distance to the next valid entry, saturating; 0 = this is the last.
    #[bits(14)]
    pub next: u16,
    /// The device is mapped.
    pub valid: bool,
}

impl DeviceEntry {
    /// Largest representable distance.
    pub const NEXT_MAX: u16 = (1 << 14) - 1;

    /// Physical address of the interrupt translation table.
    pub const fn itt_address(self) -> u64 {
        self.itt_address_51_8() << 8
    }

    /// With the table at `address`; bits 7:0 and 63:52 are dropped.
    pub const fn with_itt_address(self, address: u64) -> Self {
        self.with_itt_address_51_8((address >> 8) & 0xfff_ffff_ffff)
    }
}

/// An event's entry in its device's interrupt translation table, at index EventID.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct TranslationEntry {
    /// The collection.
    pub collection: u16,
    /// The LPI; 0 = the event is not mapped.
    pub intid: u32,
    /// Distance to the next valid entry, saturating; 0 = this is the last.
    pub next: u16,
}

impl TranslationEntry {
    /// Largest representable distance.
    pub const NEXT_MAX: u16 = u16::MAX;
}

/// A collection's entry. The table is an unordered list that ends at the first invalid entry.
#[bitfield(u64)]
#[derive(PartialEq, Eq)]
pub struct CollectionEntry {
    /// The collection.
    pub collection: u16,
    /// `GICR_TYPER.Processor_Number` of its redistributor; see [`UNMAPPED`](Self::UNMAPPED).
    #[bits(36)]
    pub target: u64,
    #[bits(11)]
    __: u16,
    /// The entry is used.
    pub valid: bool,
}

impl CollectionEntry {
    /// The low 32 bits of the target of a collection that events use but no MAPC mapped.
    pub const UNMAPPED: u32 = u32::MAX;
}
