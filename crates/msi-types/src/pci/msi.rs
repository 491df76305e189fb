//! The MSI capability (ID 0x05).

use bitfield_struct::bitfield;

/// Capability ID.
pub const CAPABILITY_ID: u8 = 0x05;
/// Offset of Message Control in the capability.
pub const CONTROL: u16 = 0x02;
/// Offset of the low address word.
pub const ADDRESS_LOW: u16 = 0x04;

/// Message Control.
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct Control {
    /// MSI Enable. While this bit is set, the function may send messages and must not use INTx.
    pub enable: bool,
    /// log2 of the number of vectors that the function can use; at most 5. Read-only.
    #[bits(3)]
    pub multiple_message_capable: u8,
    /// log2 of the number of vectors that software granted. Undefined if greater than
    /// `multiple_message_capable`.
    #[bits(3)]
    pub multiple_message_enable: u8,
    /// This bit is set if the function supports 64-bit addresses. Read-only.
    pub address_64: bool,
    /// This bit is set if the capability has mask and pending bits. Read-only.
    pub per_vector_masking: bool,
    /// This bit is set if the function supports 32-bit data. Read-only.
    pub extended_data_capable: bool,
    /// This bit is set if the function uses 32-bit data.
    pub extended_data_enable: bool,
    #[bits(5)]
    __: u8,
}

/// A capability's register offsets, which depend on two bits in [`Control`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    control: Control,
}

impl Layout {
    /// Returns the layout that a function's Message Control register determines.
    pub const fn new(control: Control) -> Self {
        Self { control }
    }

    /// Returns the offset of the high address word, if the capability has one.
    pub const fn address_high(self) -> Option<u16> {
        if self.control.address_64() { Some(0x08) } else { None }
    }

    /// Returns the offset of the 16-bit data.
    pub const fn data(self) -> u16 {
        if self.control.address_64() { 0x0c } else { 0x08 }
    }

    /// Returns the offset of the upper half of extended data.
    pub const fn extended_data(self) -> u16 {
        self.data() + 2
    }

    /// Returns the offset of the mask bits, if the capability has them.
    pub const fn mask(self) -> Option<u16> {
        if self.control.per_vector_masking() { Some(self.data() + 4) } else { None }
    }

    /// Returns the offset of the read-only pending bits, if the capability has them.
    pub const fn pending(self) -> Option<u16> {
        if self.control.per_vector_masking() { Some(self.data() + 8) } else { None }
    }

    /// Returns the length of the capability in bytes: 10, 14, 20 or 24.
    pub const fn length(self) -> u16 {
        match self.pending() {
            Some(pending) => pending + 4,
            None => self.data() + 2,
        }
    }
}

/// Returns the data that a function with `2^log2_granted` vectors sends for vector `index`: `base`
/// with the low bits replaced. Treats a `log2_granted` above 5 as 5.
pub const fn vector_data(base: u32, log2_granted: u8, index: u16) -> u32 {
    let log2 = if log2_granted > 5 { 5 } else { log2_granted };
    let low = (1u32 << log2) - 1;
    (base & !low) | (index as u32 & low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_lengths_match_the_specification() {
        let length = |wide, masking| {
            Layout::new(Control::new().with_address_64(wide).with_per_vector_masking(masking))
                .length()
        };
        assert_eq!(
            [length(false, false), length(true, false), length(false, true), length(true, true)],
            [10, 14, 20, 24]
        );
    }

    #[test]
    fn mask_offsets_match_the_specification() {
        let narrow = Layout::new(Control::new().with_per_vector_masking(true));
        let wide = Layout::new(Control::new().with_per_vector_masking(true).with_address_64(true));
        assert_eq!((narrow.mask(), narrow.pending()), (Some(0x0c), Some(0x10)));
        assert_eq!((wide.mask(), wide.pending()), (Some(0x10), Some(0x14)));
    }

    #[test]
    fn msi_control_round_trips_every_encoding() {
        for raw in 0..=u16::MAX {
            assert_eq!(u16::from(Control::from(raw)), raw);
        }
    }

    #[test]
    fn multi_msi_replaces_only_the_granted_low_bits() {
        assert_eq!(vector_data(0x20, 3, 5), 0x25);
        assert_eq!(vector_data(0x27, 0, 5), 0x27);
        assert_eq!(vector_data(0x1ff, 200, 33), 0x1e1);
    }
}
