//! Platform devices, each with a few registers that hold messages and a DeviceID from firmware.

mod config;
mod slots;
mod store;

pub use config::{DataWidth, PlatformDeviceConfig, SIZE};
pub use store::{Line, PlatformStore};

use crate::bus::{AccessWidth, MmioDevice};
use crate::lock::lock;
use crate::pci::Signaled;
use config::{CONTROL, COUNT, FEATURES, LOWER};
use msi_types::{Delivery, DeviceId, SignalMsi};
use slots::MessageSlot;
use std::sync::{Arc, Mutex};

/// A non-PCI device that does nothing but send interrupts.
pub struct PlatformDevice {
    device: DeviceId,
    config: PlatformDeviceConfig,
    upstream: Arc<dyn SignalMsi<DeviceId>>,
    state: Mutex<PlatformDeviceState>,
}

struct PlatformDeviceState {
    enabled: bool,
    slots: Vec<MessageSlot>,
    plugged: bool,
}

impl PlatformDeviceState {
    fn reset(config: PlatformDeviceConfig) -> Self {
        let slots = vec![MessageSlot::new(config); usize::from(config.slots)];
        Self { enabled: false, slots, plugged: true }
    }
}

impl PlatformDevice {
    /// Creates a device with these parameters and the DeviceID `device`, which sends its messages
    /// to `upstream`.
    pub fn new(
        device: DeviceId,
        config: PlatformDeviceConfig,
        upstream: Arc<dyn SignalMsi<DeviceId>>,
    ) -> Self {
        Self { device, config, upstream, state: Mutex::new(PlatformDeviceState::reset(config)) }
    }

    /// Returns the device's parameters.
    pub fn config(&self) -> PlatformDeviceConfig {
        self.config
    }

    /// Signals the event of slot `index`, or marks the slot as raised if it is masked. A level that
    /// is already asserted stays asserted.
    pub fn signal(&self, index: u16) -> Signaled {
        let mut state = lock(&self.state);
        let PlatformDeviceState { enabled: true, plugged: true, slots } = &mut *state else {
            return Signaled::Off;
        };
        let Some(slot) = slots.get_mut(usize::from(index)) else { return Signaled::Off };
        slot.raised = true;
        if slot.masked { Signaled::Held } else { self.settle(slot) }
    }

    /// Removes the device. Deasserts all its levels first, because a removed device can't do so.
    /// Afterwards, the device's registers read as all ones.
    pub fn unplug(&self) {
        let mut state = lock(&self.state);
        if state.enabled {
            for slot in &mut state.slots {
                (slot.masked, slot.raised) = (false, false);
                self.settle(slot);
            }
        }
        *state = PlatformDeviceState { plugged: false, ..PlatformDeviceState::reset(self.config) };
    }

    /// Reinserts the device after a reset.
    pub fn plug(&self) {
        *lock(&self.state) = PlatformDeviceState::reset(self.config);
    }

    /// Sends the next message of the slot, if a message is due. The result for an asserted level
    /// that was already signaled is `Pending`.
    fn settle(&self, slot: &mut MessageSlot) -> Signaled {
        let message = slot.next_message(self.config.trigger);
        let delivery = message.map(|message| self.upstream.signal_msi(self.device, message));
        Signaled::Sent(delivery.unwrap_or(Delivery::Pending))
    }

    fn write_register(&self, state: &mut PlatformDeviceState, offset: u64, value: u32) {
        match offset {
            CONTROL => {
                state.enabled = value & 1 != 0;
                if !state.enabled {
                    // A disabled device discards its events.
                    state.slots.iter_mut().for_each(MessageSlot::forget);
                }
            }
            LOWER => {
                let slot = usize::try_from(value).ok().and_then(|slot| state.slots.get_mut(slot));
                if let Some(slot) = slot {
                    slot.raised = false;
                }
            }
            _ => {
                if let Some(place) = slots::place(offset)
                    && let Some(slot) = state.slots.get_mut(place.slot)
                {
                    slot.write(self.config, place, value);
                }
            }
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
            COUNT => u32::from(self.config.slots),
            CONTROL => u32::from(state.enabled),
            FEATURES => self.config.features(),
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

msi_types::debug_by!(PlatformDevice as "PlatformDevice", |it| {device: it.device});

#[cfg(test)]
mod tests;
