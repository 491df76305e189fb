//! A platform device's parameters, and its registers, which are 32 bits wide.

use crate::pci::AddressWidth;
use msi_types::{Rewrite, Trigger};

/// Size of the register region in bytes.
pub const SIZE: u64 = 0x1000;
/// Maximum number of slots.
const MAX_SLOTS: u16 = 120;

/// Number of slots. Read-only.
pub(super) const COUNT: u64 = 0x00;
/// Bit 0: the device may send messages.
pub(super) const CONTROL: u64 = 0x04;
/// The parameters of all slots ([`PlatformDeviceConfig::features`]). Read-only.
pub(super) const FEATURES: u64 = 0x08;
/// Writing a slot number deasserts that slot's level. Write-only.
pub(super) const LOWER: u64 = 0x0c;
/// The messages of the first slot. Slots are 16 bytes apart. The second message of a slot is for a
/// deasserted level.
pub(super) const SLOTS: u64 = 0x100;
pub(super) const SECOND: u64 = 0x880;
pub(super) const SLOT_SIZE: u64 = 16;
/// Offset in a slot, behind the words of its message: bit 0 masks the slot, and writing bit 1 makes
/// the values written to the slot's other words take effect.
pub(super) const SLOT_CONTROL: u64 = 12;
pub(super) const MASK: u32 = 1 << 0;
pub(super) const COMMIT: u32 = 1 << 1;

/// Number of data bits that a slot stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataWidth {
    /// 16 bits.
    Bits16,
    /// 32 bits.
    Bits32,
}

/// A platform device's parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlatformDeviceConfig {
    /// Number of slots: 1 to 120.
    pub slots: u16,
    /// Address width of a slot.
    pub address: AddressWidth,
    /// Data width of a slot.
    pub data: DataWidth,
    /// The way in which a message can be changed. Only slots with [`Rewrite::Masked`] have mask
    /// bits. With [`Rewrite::Atomic64`], all words take effect at the commit; with
    /// [`Rewrite::AddressOnly`], only the address takes effect at the commit. In all other cases,
    /// each word takes effect immediately.
    pub rewrite: Rewrite,
    /// Trigger mode.
    pub trigger: Trigger,
}

/// The ways in which a message can be changed, by their numbers in the features register.
const REWRITES: [Rewrite; 5] = [
    Rewrite::Masked,
    Rewrite::Atomic64,
    Rewrite::AddressOnly,
    Rewrite::LowWordOnly,
    Rewrite::Never,
];

impl PlatformDeviceConfig {
    /// Creates parameters for maskable, edge-triggered slots with 64-bit addresses and 32-bit data.
    /// A device has at most 120 slots.
    pub const fn new(slots: u16) -> Self {
        Self {
            slots: if slots > MAX_SLOTS { MAX_SLOTS } else { slots },
            address: AddressWidth::Bits64,
            data: DataWidth::Bits32,
            rewrite: Rewrite::Masked,
            trigger: Trigger::Edge,
        }
    }

    /// Returns the value of the features register:
    /// - bit 0: 64-bit addresses
    /// - bit 1: 32-bit data
    /// - bits 4:2: how a message can be changed
    /// - bit 5: a level has two messages
    pub(super) fn features(self) -> u32 {
        let rewrite = (0..).zip(REWRITES).find(|(_, rewrite)| *rewrite == self.rewrite);
        u32::from(self.address == AddressWidth::Bits64)
            | u32::from(self.data == DataWidth::Bits32) << 1
            | rewrite.map_or(0, |(number, _)| number) << 2
            | u32::from(self.trigger == Trigger::Level) << 5
    }

    /// Returns the parameters of a device with this value in its features register.
    pub(super) fn of(slots: u16, features: u32) -> Self {
        let has = |bit: u32| features & 1 << bit != 0;
        let rewrite = (0..).zip(REWRITES).find(|(number, _)| *number == features >> 2 & 7);
        Self {
            address: if has(0) { AddressWidth::Bits64 } else { AddressWidth::Bits32 },
            data: if has(1) { DataWidth::Bits32 } else { DataWidth::Bits16 },
            rewrite: rewrite.map_or(Rewrite::Never, |(_, rewrite)| rewrite),
            trigger: if has(5) { Trigger::Level } else { Trigger::Edge },
            ..Self::new(slots)
        }
    }
}
