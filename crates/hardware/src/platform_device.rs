//! Platform devices: a few registers that hold messages, and a DeviceID that firmware states.

mod slots;
mod store;

pub use store::{Line, PlatformStore};

use crate::bus::{AccessWidth, Doorbells, MmioDevice};
use crate::lock::lock;
use crate::pci::{AddressWidth, Signalled};
use msi_types::{Delivery, DeviceId, Rewrite, SignalMsi, Trigger};
use slots::Slot;
use std::fmt;
use std::sync::{Arc, Mutex};

/// The device's registers. 32 bits each.
mod registers {
    /// Number of slots. Read-only.
    pub(super) const COUNT: u64 = 0x00;
    /// Bit 0: the device may send.
    pub(super) const CONTROL: u64 = 0x04;
    /// Widths and kind of a slot ([`Features`](super::Features)). Read-only.
    pub(super) const FEATURES: u64 = 0x08;
    /// The level of the slot with the written number falls. Write-only.
    pub(super) const LOWER: u64 = 0x0c;
    /// First slot; 16 bytes each.
    pub(super) const SLOTS: u64 = 0x100;
    /// The second message of the first slot; 16 bytes each.
    pub(super) const SECOND: u64 = 0x880;
    pub(super) const SLOT_SIZE: u64 = 16;
    pub(super) const ADDRESS_LOW: u64 = 0;
    pub(super) const ADDRESS_HIGH: u64 = 4;
    pub(super) const DATA: u64 = 8;
    /// Bit 0: held back. Bit 1: what was written to the other words counts from now on.
    pub(super) const SLOT_CONTROL: u64 = 12;

    pub(super) const MASK: u32 = 1 << 0;
    pub(super) const COMMIT: u32 = 1 << 1;
}

/// Bytes of the device's registers.
pub const SIZE: u64 = 0x1000;
/// Most slots that fit.
pub const MAX_SLOTS: u16 = 120;

/// Number of data bits that a slot stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataWidth {
    /// 16.
    Bits16,
    /// 32.
    Bits32,
}

/// The parameters of a platform device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlatformDeviceConfig {
    /// Messages: 1 to [`MAX_SLOTS`].
    pub slots: u16,
    /// Width of a slot's address.
    pub address: AddressWidth,
    /// Width of its data.
    pub data: DataWidth,
    /// The way in which a message can be changed. [`Rewrite::Masked`]: each slot has a mask bit; no
    /// other device has one. With [`Rewrite::Atomic64`] all words take effect at the commit, with
    /// [`Rewrite::AddressOnly`] the address does; else each word takes effect at once.
    pub rewrite: Rewrite,
    /// The device's trigger.
    pub trigger: Trigger,
}

impl PlatformDeviceConfig {
    /// Maskable slots for 64-bit addresses and 32-bit data, at most [`MAX_SLOTS`] of them; edges.
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

/// The features register: bit 0: 64-bit addresses; bit 1: 32-bit data; bits 4:2: how a message can
/// be changed; bit 5: two messages for a level.
#[derive(Debug)]
struct Features(u32);

impl Features {
    fn of(config: PlatformDeviceConfig) -> Self {
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

    const fn address_bits(&self) -> u8 {
        if self.0 & 1 != 0 { 64 } else { 32 }
    }

    const fn data_bits(&self) -> u8 {
        if self.0 & 2 != 0 { 32 } else { 16 }
    }

    const fn rewrite(&self) -> Rewrite {
        match self.0 >> 2 & 7 {
            0 => Rewrite::Masked,
            1 => Rewrite::Atomic64,
            2 => Rewrite::AddressOnly,
            3 => Rewrite::LowWordOnly,
            _ => Rewrite::Never,
        }
    }

    /// Does what is written count once it is committed?
    const fn is_staged(&self) -> bool {
        matches!(self.rewrite(), Rewrite::Atomic64 | Rewrite::AddressOnly)
    }

    const fn trigger(&self) -> Trigger {
        if self.0 & 1 << 5 != 0 { Trigger::Level } else { Trigger::Edge }
    }
}

/// A device outside of PCI that can do nothing but interrupt.
pub struct PlatformDevice {
    device: DeviceId,
    config: PlatformDeviceConfig,
    doorbells: Arc<Doorbells>,
    state: Mutex<PlatformDeviceState>,
}

struct PlatformDeviceState {
    enabled: bool,
    slots: Vec<Slot>,
    plugged: bool,
}

impl PlatformDeviceState {
    fn reset(config: PlatformDeviceConfig) -> Self {
        let slots = vec![Slot::new(config); usize::from(config.slots.min(MAX_SLOTS))];
        Self { enabled: false, slots, plugged: true }
    }
}

impl PlatformDevice {
    /// A device with `slots` messages (at most [`MAX_SLOTS`]) that is `device` at its controller.
    pub fn new(device: DeviceId, slots: u16, doorbells: Arc<Doorbells>) -> Self {
        Self::with_config(device, PlatformDeviceConfig::new(slots), doorbells)
    }

    /// A device like this that is `device` at its controller.
    pub fn with_config(
        device: DeviceId,
        config: PlatformDeviceConfig,
        doorbells: Arc<Doorbells>,
    ) -> Self {
        Self { device, config, doorbells, state: Mutex::new(PlatformDeviceState::reset(config)) }
    }

    /// The device's parameters.
    pub fn config(&self) -> PlatformDeviceConfig {
        self.config
    }

    /// Signals by slot `index`, or notes that it is to signal. A level that is up stays up.
    pub fn signal(&self, index: u16) -> Signalled {
        let mut state = lock(&self.state);
        let PlatformDeviceState { enabled: true, plugged: true, slots } = &mut *state else {
            return Signalled::Off;
        };
        let Some(slot) = slots.get_mut(usize::from(index)) else { return Signalled::Off };
        slot.raise();
        if slot.is_masked() { Signalled::Held } else { self.settle(slot) }
    }

    /// Takes the device away: its registers read as ones. It lowers its levels before it goes, as
    /// nobody could later.
    pub fn unplug(&self) {
        let mut state = lock(&self.state);
        if state.enabled {
            for slot in &mut state.slots {
                slot.unmask();
                slot.lower();
                self.settle(slot);
            }
        }
        *state = PlatformDeviceState { plugged: false, ..PlatformDeviceState::reset(self.config) };
    }

    /// Puts it back, reset.
    pub fn plug(&self) {
        *lock(&self.state) = PlatformDeviceState::reset(self.config);
    }

    /// Sends what the slot has to say. A level that is up already is pending.
    fn settle(&self, slot: &mut Slot) -> Signalled {
        let message = slot.next_message(self.config.trigger);
        let delivery = message.map(|message| self.doorbells.signal_msi(self.device, message));
        Signalled::Sent(delivery.unwrap_or(Delivery::Pending))
    }

    fn write_register(&self, state: &mut PlatformDeviceState, offset: u64, value: u32) {
        if offset == registers::CONTROL {
            state.enabled = value & 1 != 0;
            if !state.enabled {
                // A disabled device forgets its events.
                state.slots.iter_mut().for_each(Slot::forget);
            }
        } else if offset == registers::LOWER {
            let slot = usize::try_from(value).ok().and_then(|slot| state.slots.get_mut(slot));
            slot.into_iter().for_each(Slot::lower);
        } else if let Some(place) = slots::place(offset)
            && let Some(slot) = state.slots.get_mut(place.slot)
        {
            slot.write(self.config, place, value);
        }
    }
}

impl MmioDevice for PlatformDevice {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        let state = lock(&self.state);
        if !state.plugged || width != AccessWidth::Word {
            return width.mask();
        }
        let value = match offset {
            registers::COUNT => u32::try_from(state.slots.len()).unwrap_or(0),
            registers::CONTROL => u32::from(state.enabled),
            registers::FEATURES => Features::of(self.config).0,
            _ => slots::place(offset)
                .and_then(|place| Some(state.slots.get(place.slot)?.read(place)))
                .unwrap_or(0),
        };
        u64::from(value)
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        let mut state = lock(&self.state);
        let Ok(value) = u32::try_from(value) else { return };
        if !state.plugged || width != AccessWidth::Word {
            return;
        }
        self.write_register(&mut state, offset, value);
        if state.enabled {
            for slot in &mut state.slots {
                self.settle(slot);
            }
        }
    }
}

impl fmt::Debug for PlatformDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformDevice").field("device", &self.device).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
