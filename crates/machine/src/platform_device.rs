//! Platform devices: a few registers that hold messages, and a DeviceID that firmware states.

use crate::bus::{AccessWidth, Device, Doorbells};
use crate::lock::lock;
use crate::pci::Fired;
use crate::platform::CpuBus;
use msi_types::{DeviceId, Fit, Masking, MessageStore, MsiMessage, Rewrite, SignalMsi, Slots, StoreError};
use std::fmt;
use std::sync::{Arc, Mutex};

/// The device's registers. 32 bits each.
mod registers {
    /// Number of slots. Read-only.
    pub(super) const COUNT: u64 = 0x00;
    /// Bit 0: the device may send.
    pub(super) const CONTROL: u64 = 0x04;
    /// First slot; 16 bytes each.
    pub(super) const SLOTS: u64 = 0x100;
    pub(super) const SLOT_SIZE: u64 = 16;
    pub(super) const ADDRESS_LOW: u64 = 0;
    pub(super) const ADDRESS_HIGH: u64 = 4;
    pub(super) const DATA: u64 = 8;
    /// Bit 0: held back.
    pub(super) const MASK: u64 = 12;
}

/// Bytes of the device's registers.
pub const SIZE: u64 = 0x1000;
/// Most slots that fit.
pub const MAX_SLOTS: u16 = 240;

/// A device outside of PCI that can do nothing but interrupt.
pub struct PlatformDevice {
    device: DeviceId,
    doorbells: Arc<Doorbells>,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    enabled: bool,
    slots: Vec<[u32; 4]>,
    pending: Vec<bool>,
    plugged: bool,
}

impl State {
    fn reset(slots: usize) -> Self {
        Self { enabled: false, slots: vec![[0, 0, 0, 1]; slots], pending: vec![false; slots], plugged: true }
    }
}

impl PlatformDevice {
    /// A device with `slots` messages (at most [`MAX_SLOTS`]) that is `device` at its controller.
    pub fn new(device: DeviceId, slots: u16, doorbells: Arc<Doorbells>) -> Self {
        let slots = usize::from(slots.min(MAX_SLOTS));
        Self { device, doorbells, state: Mutex::new(State::reset(slots)) }
    }

    /// Sends the message of vector `index`, or notes that it is to be sent.
    pub fn fire(&self, index: u16) -> Fired {
        let index = usize::from(index);
        let mut state = lock(&self.state);
        let State { enabled: true, plugged: true, slots, pending } = &mut *state else { return Fired::Off };
        let (Some(slot), Some(pending)) = (slots.get(index), pending.get_mut(index)) else {
            return Fired::Off;
        };
        if slot[3] & 1 != 0 {
            *pending = true;
            return Fired::Held;
        }
        Fired::Sent(self.doorbells.signal_msi(self.device, message(slot)))
    }

    /// Takes the device away: its registers read as ones.
    pub fn unplug(&self) {
        let mut state = lock(&self.state);
        *state = State { plugged: false, ..State::reset(state.slots.len()) };
    }

    /// Puts it back, reset.
    pub fn plug(&self) {
        let mut state = lock(&self.state);
        *state = State::reset(state.slots.len());
    }

    fn release(&self, state: &mut State) {
        if !state.enabled {
            return;
        }
        for (slot, pending) in state.slots.iter().zip(&mut state.pending) {
            if *pending && slot[3] & 1 == 0 {
                *pending = false;
                self.doorbells.signal_msi(self.device, message(slot));
            }
        }
    }
}

fn message(slot: &[u32; 4]) -> MsiMessage {
    MsiMessage { address: u64::from(slot[1]) << 32 | u64::from(slot[0]), data: slot[2] }
}

/// Which word of which slot.
fn place(offset: u64) -> Option<(usize, usize)> {
    let offset = offset.checked_sub(registers::SLOTS)?;
    let slot = usize::try_from(offset / registers::SLOT_SIZE).ok()?;
    Some((slot, usize::try_from(offset % registers::SLOT_SIZE / 4).ok()?))
}

impl Device for PlatformDevice {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        let state = lock(&self.state);
        if !state.plugged || width != AccessWidth::Word {
            return width.mask();
        }
        let value = match offset {
            registers::COUNT => u32::try_from(state.slots.len()).unwrap_or(0),
            registers::CONTROL => u32::from(state.enabled),
            _ => {
                place(offset).and_then(|(slot, word)| state.slots.get(slot)?.get(word).copied()).unwrap_or(0)
            }
        };
        u64::from(value)
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        let mut state = lock(&self.state);
        let Ok(value) = u32::try_from(value) else { return };
        if !state.plugged || width != AccessWidth::Word {
            return;
        }
        if offset == registers::CONTROL {
            state.enabled = value & 1 != 0;
        } else if let Some(word) =
            place(offset).and_then(|(slot, word)| state.slots.get_mut(slot)?.get_mut(word))
        {
            *word = value;
        }
        self.release(&mut state);
    }
}

impl fmt::Debug for PlatformDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlatformDevice").field("device", &self.device).finish_non_exhaustive()
    }
}

/// The driver's side: the device's registers as a message store.
pub(crate) struct PlatformStore {
    bus: CpuBus,
    base: u64,
    slots: u16,
    /// The device's own lock: one update at a time.
    open: Mutex<()>,
}

impl PlatformStore {
    /// Takes over the device whose registers are at `base`.
    pub(crate) fn new(bus: CpuBus, base: u64) -> Self {
        let slots = u16::try_from(bus.read32(base + registers::COUNT)).unwrap_or(0).min(MAX_SLOTS);
        Self { bus, base, slots, open: Mutex::new(()) }
    }

    /// The message in a slot.
    pub(crate) fn message(&self, slot: u16) -> MsiMessage {
        let read = |offset| self.bus.read32(self.register(slot, offset));
        message(&[read(registers::ADDRESS_LOW), read(registers::ADDRESS_HIGH), read(registers::DATA), 0])
    }

    fn register(&self, slot: u16, offset: u64) -> u64 {
        self.base + registers::SLOTS + u64::from(slot) * registers::SLOT_SIZE + offset
    }

    fn write(&self, slot: u16, offset: u64, value: u32) {
        self.bus.write(self.register(slot, offset), AccessWidth::Word, u64::from(value));
    }
}

impl MessageStore for PlatformStore {
    fn slots(&self) -> u16 {
        self.slots
    }

    fn fit(&self) -> Fit {
        Fit { address_bits: 64, data_bits: 32, rewrite: Rewrite::Masked }
    }

    fn masking(&self) -> Masking {
        Masking::PerVector
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn Slots)) -> Result<(), StoreError> {
        let _open = lock(&self.open);
        let mut update = Update { store: self, failure: None };
        change(&mut update);
        update.failure.map_or(Ok(()), Err)
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        let control = self.base + registers::CONTROL;
        self.bus.write(control, AccessWidth::Word, u64::from(enabled));
        if self.bus.read32(control) == u32::from(enabled) {
            Ok(())
        } else {
            Err(StoreError { slot: 0, reason: "the device did not take its control register" })
        }
    }
}

struct Update<'a> {
    store: &'a PlatformStore,
    failure: Option<StoreError>,
}

impl Slots for Update<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        if self.failure.is_some() {
            return;
        }
        let words = [
            (registers::ADDRESS_LOW, message.address_low()),
            (registers::ADDRESS_HIGH, message.address_high()),
            (registers::DATA, message.data),
        ];
        for (offset, value) in words {
            self.store.write(slot, offset, value);
        }
        let taken = |(offset, value)| self.store.bus.read32(self.store.register(slot, offset)) == value;
        if !words.into_iter().all(taken) {
            self.failure = Some(StoreError { slot, reason: "the device read back another message" });
        }
    }

    fn mask(&mut self, slot: u16) {
        self.store.write(slot, registers::MASK, 1);
        self.store.bus.read32(self.store.register(slot, registers::MASK));
    }

    fn unmask(&mut self, slot: u16) {
        self.store.write(slot, registers::MASK, 0);
    }
}
