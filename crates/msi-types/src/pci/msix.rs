//! The MSI-X capability (ID 0x11), its table and its pending bits.

use bitfield_struct::bitfield;

/// Capability ID.
pub const CAPABILITY_ID: u8 = 0x11;
/// Offset of Message Control in the capability.
pub const CONTROL: u16 = 0x02;
/// Offset of the register that locates the table ([`BarOffset`]).
pub const TABLE: u16 = 0x04;
/// Offset of the register that locates the pending bit array ([`BarOffset`]).
pub const PBA: u16 = 0x08;
/// Length of the capability in bytes.
pub const LENGTH: u16 = 12;

/// Size of a table entry in bytes.
pub const ENTRY_SIZE: u64 = 16;
/// Offset of the low word of the address in an entry.
pub const ENTRY_ADDRESS_LOW: u64 = 0;
/// Offset of the high word of the address in an entry.
pub const ENTRY_ADDRESS_HIGH: u64 = 4;
/// Offset of the data in an entry.
pub const ENTRY_DATA: u64 = 8;
/// Offset of [`VectorControl`] in an entry.
pub const ENTRY_CONTROL: u64 = 12;

/// Message Control.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Control {
    /// Number of table entries minus one. Read-only.
    #[bits(11)]
    pub table_size_minus_one: u16,
    #[bits(3)]
    __: u8,
    /// Function Mask. While this bit is set, all vectors of the function are masked.
    pub function_mask: bool,
    /// MSI-X Enable. While this bit is set, the function may send messages and must not use INTx.
    pub enable: bool,
}

impl Control {
    /// Returns the number of table entries: 1 to 2048.
    pub const fn table_size(self) -> u16 {
        self.table_size_minus_one() + 1
    }
}

/// Table Offset/Table BIR, or PBA Offset/PBA BIR: a location in a region of the function.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct BarOffset {
    /// Base address register: 0 to 5; 6 and 7 are reserved.
    #[bits(3)]
    pub bir: u8,
    /// Offset in that region, in units of 8 bytes.
    #[bits(29)]
    pub offset_in_qwords: u32,
}

impl BarOffset {
    /// Returns the offset in the region, in bytes.
    pub const fn offset(self) -> u64 {
        self.offset_in_qwords() as u64 * 8
    }
}

/// Vector Control, the last word of a table entry.
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct VectorControl {
    /// Mask Bit. While this bit is set, the vector is masked. The bit is 1 after reset.
    pub masked: bool,
    #[bits(31)]
    __: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_size_spans_one_to_2048() {
        assert_eq!(Control::from(0).table_size(), 1);
        assert_eq!(Control::from(0x7ff).table_size(), crate::pci::MSIX_MAX_VECTORS);
    }

    #[test]
    fn a_table_offset_register_splits_into_bir_and_offset() {
        assert_eq!(BarOffset::from(0x2003).bir(), 3);
        assert_eq!(BarOffset::from(0x2003).offset(), 0x2000);
    }

    #[test]
    fn msix_control_round_trips_every_encoding() {
        for raw in 0..=u16::MAX {
            assert_eq!(u16::from(Control::from(raw)), raw);
        }
    }
}
