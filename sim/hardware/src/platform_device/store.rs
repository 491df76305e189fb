//! The driver side: the device's registers as a message store.

use super::config::{Features, MAX_SLOTS};
use super::registers;
use crate::bus::AccessWidth;
use crate::lock::lock;
use crate::platform::CpuBus;
use msi_types::{
    Fit, LevelMessages, Masking, MessageStore, MsiMessage, Rewrite, Storage, StoreError,
    StoreUpdate, Trigger,
};
use std::sync::Mutex;

/// A platform device's message store.
#[derive(Debug)]
pub struct PlatformStore {
    bus: CpuBus,
    base: u64,
    slots: u16,
    features: Features,
    storage: Storage,
    /// The device lock, which serializes updates.
    open: Mutex<()>,
}

impl PlatformStore {
    /// Takes over the device whose registers are at `base`.
    pub fn new(bus: CpuBus, base: u64) -> Self {
        let slots = u16::try_from(bus.read32(base + registers::COUNT)).unwrap_or(0).min(MAX_SLOTS);
        let features = Features(bus.read32(base + registers::FEATURES));
        Self { bus, base, slots, features, storage: Storage::Device, open: Mutex::new(()) }
    }

    /// Marks the store as one that a hypervisor emulates for its guests.
    pub fn emulated(self) -> Self {
        Self { storage: Storage::Emulated, ..self }
    }

    /// Returns the message in a slot.
    pub fn message(&self, slot: u16) -> MsiMessage {
        let read = |offset| self.bus.read32(self.register(registers::SLOTS, slot, offset));
        let address = u64::from(read(registers::ADDRESS_HIGH)) << 32
            | u64::from(read(registers::ADDRESS_LOW));
        MsiMessage { address, data: read(registers::DATA) }
    }

    /// Returns the register that a handler writes to deassert a level, or `None` if the device is
    /// edge-triggered.
    pub fn line(&self, slot: u16) -> Option<Line> {
        let line = Line { bus: self.bus.clone(), register: self.base + registers::LOWER, slot };
        (self.features.trigger() == Trigger::Level).then_some(line)
    }

    /// Returns the address of a register in the area of the first or second messages.
    fn register(&self, area: u64, slot: u16, offset: u64) -> u64 {
        self.base + area + u64::from(slot) * registers::SLOT_SIZE + offset
    }

    fn control(&self, slot: u16, value: u32) {
        let control = self.register(registers::SLOTS, slot, registers::SLOT_CONTROL);
        self.bus.write(control, AccessWidth::Word, u64::from(value));
    }
}

/// A level of one slot of a device.
#[derive(Debug)]
pub struct Line {
    bus: CpuBus,
    register: u64,
    slot: u16,
}

impl Line {
    /// Makes the device deassert the level.
    pub fn lower(&self) {
        self.bus.write(self.register, AccessWidth::Word, u64::from(self.slot));
    }
}

impl MessageStore for PlatformStore {
    fn slots(&self) -> u16 {
        self.slots
    }

    fn fit(&self) -> Fit {
        Fit::new(self.features.rewrite())
            .with_address_bits(self.features.address_bits())
            .with_data_bits(self.features.data_bits())
    }

    fn masking(&self) -> Masking {
        match self.features.rewrite() {
            Rewrite::Masked => Masking::PerVector,
            Rewrite::Atomic64 | Rewrite::AddressOnly | Rewrite::LowWordOnly | Rewrite::Never => {
                Masking::None
            }
        }
    }

    fn storage(&self) -> Storage {
        self.storage
    }

    fn trigger(&self) -> Trigger {
        self.features.trigger()
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
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
            Err(StoreError {
                slot: 0,
                reason: "the device did not accept the value of its control register",
            })
        }
    }
}

struct Update<'a> {
    store: &'a PlatformStore,
    failure: Option<StoreError>,
}

impl Update<'_> {
    fn store(&mut self, area: u64, slot: u16, message: MsiMessage) {
        if self.failure.is_some() {
            return;
        }
        let words = [
            (registers::ADDRESS_LOW, message.address_low()),
            (registers::ADDRESS_HIGH, message.address_high()),
            (registers::DATA, message.data),
        ];
        let store = self.store;
        for (offset, value) in words {
            store.bus.write(
                store.register(area, slot, offset),
                AccessWidth::Word,
                u64::from(value),
            );
        }
        if store.features.is_staged() && area == registers::SLOTS {
            store.control(slot, registers::COMMIT);
        }
        let taken = |(offset, value)| store.bus.read32(store.register(area, slot, offset)) == value;
        if !words.into_iter().all(taken) {
            self.failure =
                Some(StoreError { slot, reason: "the device returned a different message" });
        }
    }
}

impl StoreUpdate for Update<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.store(registers::SLOTS, slot, message);
    }

    fn write_level(&mut self, slot: u16, messages: LevelMessages) {
        self.store(registers::SLOTS, slot, messages.assert);
        self.store(registers::SECOND, slot, messages.deassert);
    }

    fn mask(&mut self, slot: u16) {
        self.store.control(slot, registers::MASK);
        self.store.bus.read32(self.store.register(registers::SLOTS, slot, registers::SLOT_CONTROL));
    }

    fn unmask(&mut self, slot: u16) {
        self.store.control(slot, 0);
    }
}
