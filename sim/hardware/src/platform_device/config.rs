//! A platform device's parameters, and their encoding in the device's features register.

use crate::pci::AddressWidth;
use msi_types::{Rewrite, Trigger};

/// Size of the register region in bytes.
pub const SIZE: u64 = 0x1000;
/// Maximum number of slots.
pub const MAX_SLOTS: u16 = 120;

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
    /// Number of slots: 1 to [`MAX_SLOTS`].
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

impl PlatformDeviceConfig {
    /// Creates parameters for maskable, edge-triggered slots with 64-bit addresses and 32-bit data.
    /// If `slots` exceeds [`MAX_SLOTS`], the device has [`MAX_SLOTS`] slots.
    pub const fn new(slots: u16) -> Self {
        Self {
            slots: if slots > MAX_SLOTS { MAX_SLOTS } else { slots },
            address: AddressWidth::Bits64,
            data: DataWidth::Bits32,
            rewrite: Rewrite::Masked,
            trigger: Trigger::Edge,
        }
    }
}

/// The features register:
/// - bit 0: 64-bit addresses
/// - bit 1: 32-bit data
/// - bits 4:2: how a message can be changed
/// - bit 5: a level has two messages
#[derive(Debug)]
pub(super) struct Features(pub(super) u32);

impl Features {
    pub(super) fn of(config: PlatformDeviceConfig) -> Self {
        let rewrite = match config.rewrite {
            Rewrite::Masked => 0,
            Rewrite::Atomic64 => 1,
            Rewrite::AddressOnly => 2,
            Rewrite::LowWordOnly => 3,
            Rewrite::Never => 4,
        };
        let address = u32::from(config.address == AddressWidth::Bits64);
        let data = u32::from(config.data == DataWidth::Bits32);
        let level = u32::from(config.trigger == Trigger::Level);
        Self(address | data << 1 | rewrite << 2 | level << 5)
    }

    pub(super) const fn address_bits(&self) -> u8 {
        if self.0 & 1 != 0 { 64 } else { 32 }
    }

    pub(super) const fn data_bits(&self) -> u8 {
        if self.0 & 2 != 0 { 32 } else { 16 }
    }

    pub(super) const fn rewrite(&self) -> Rewrite {
        match self.0 >> 2 & 7 {
            0 => Rewrite::Masked,
            1 => Rewrite::Atomic64,
            2 => Rewrite::AddressOnly,
            3 => Rewrite::LowWordOnly,
            _ => Rewrite::Never,
        }
    }

    /// Returns `true` if written words don't take effect until the commit.
    pub(super) const fn is_staged(&self) -> bool {
        matches!(self.rewrite(), Rewrite::Atomic64 | Rewrite::AddressOnly)
    }

    pub(super) const fn trigger(&self) -> Trigger {
        if self.0 & 1 << 5 != 0 { Trigger::Level } else { Trigger::Edge }
    }
}
