//! The device's registers, each 32 bits wide.

/// Number of slots. Read-only.
pub(super) const COUNT: u64 = 0x00;
/// Bit 0: the device may send messages.
pub(super) const CONTROL: u64 = 0x04;
/// Widths and kind of the slots ([`Features`](super::config::Features)). Read-only.
pub(super) const FEATURES: u64 = 0x08;
/// Writing a slot number deasserts that slot's level. Write-only.
pub(super) const LOWER: u64 = 0x0c;
/// The first slot. Slots are 16 bytes apart.
pub(super) const SLOTS: u64 = 0x100;
/// The second message of the first slot. Slots are 16 bytes apart.
pub(super) const SECOND: u64 = 0x880;
pub(super) const SLOT_SIZE: u64 = 16;
pub(super) const ADDRESS_LOW: u64 = 0;
pub(super) const ADDRESS_HIGH: u64 = 4;
pub(super) const DATA: u64 = 8;
/// Bit 0: the slot is masked. Bit 1: writing one makes the values written to the slot's other words
/// take effect.
pub(super) const SLOT_CONTROL: u64 = 12;

pub(super) const MASK: u32 = 1 << 0;
pub(super) const COMMIT: u32 = 1 << 1;
