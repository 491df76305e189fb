//! The driver side: the device's registers as a message store.

use super::config::{
    COMMIT, CONTROL, COUNT, DataWidth, FEATURES, LOWER, MASK, PlatformDeviceConfig, SECOND,
    SLOT_CONTROL, SLOT_SIZE, SLOTS,
};
use crate::bus::AccessWidth;
use crate::lock::lock;
use crate::pci::AddressWidth;
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
    config: PlatformDeviceConfig,
    storage: Storage,
    /// The device lock, which serializes updates.
    open: Mutex<()>,
}

impl PlatformStore {
    /// Takes over the device whose registers are at `base`.
    pub fn new(bus: CpuBus, base: u64) -> Self {
        let slots = u16::try_from(bus.read32(base + COUNT)).unwrap_or(0);
        let config = PlatformDeviceConfig::of(slots, bus.read32(base + FEATURES));
        Self { bus, base, config, storage: Storage::Device, open: Mutex::new(()) }
    }

    /// States who implements the store: the device, or a hypervisor that emulates it.
    #[must_use]
    pub fn with_storage(self, storage: Storage) -> Self {
        Self { storage, ..self }
    }

    /// Returns the message in a slot.
    pub fn message(&self, slot: u16) -> MsiMessage {
        let [low, high, data] = [0, 1, 2].map(|word| self.read(Self::word(SLOTS, slot, word)));
        MsiMessage { address: u64::from(high) << 32 | u64::from(low), data }
    }

    /// Returns the register that a handler writes to deassert a level, or `None` if the device is
    /// edge-triggered.
    pub fn line(&self, slot: u16) -> Option<Line> {
        let line = Line { bus: self.bus.clone(), register: self.base + LOWER, slot };
        (self.config.trigger == Trigger::Level).then_some(line)
    }

    /// Returns the offset of a word of a message in the area of the first or second messages.
    fn word(area: u64, slot: u16, word: u64) -> u64 {
        area + u64::from(slot) * SLOT_SIZE + word * 4
    }

    fn control(slot: u16) -> u64 {
        Self::word(SLOTS, slot, 0) + SLOT_CONTROL
    }

    fn read(&self, offset: u64) -> u32 {
        self.bus.read32(self.base + offset)
    }

    fn write(&self, offset: u64, value: u32) {
        self.bus.write(self.base + offset, AccessWidth::Word, u64::from(value));
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
        self.config.slots
    }

    fn fit(&self) -> Fit {
        let PlatformDeviceConfig { address, data, rewrite, .. } = self.config;
        Fit::new(rewrite)
            .with_address_bits(if address == AddressWidth::Bits64 { 64 } else { 32 })
            .with_data_bits(if data == DataWidth::Bits32 { 32 } else { 16 })
    }

    fn masking(&self) -> Masking {
        match self.config.rewrite {
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
        self.config.trigger
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        let _open = lock(&self.open);
        let mut update = Update { store: self, failure: None };
        change(&mut update);
        update.failure.map_or(Ok(()), Err)
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        self.write(CONTROL, enabled.into());
        let reason = "the device did not accept the value of its control register";
        let is_taken = self.read(CONTROL) == u32::from(enabled);
        is_taken.then_some(()).ok_or(StoreError { slot: 0, reason })
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
        let store = self.store;
        let words = [message.address_low(), message.address_high(), message.data];
        let words =
            (0..).zip(words).map(|(word, value)| (PlatformStore::word(area, slot, word), value));
        words.clone().for_each(|(offset, value)| store.write(offset, value));
        if area == SLOTS && matches!(store.config.rewrite, Rewrite::Atomic64 | Rewrite::AddressOnly)
        {
            store.write(PlatformStore::control(slot), COMMIT);
        }
        if words.into_iter().any(|(offset, value)| store.read(offset) != value) {
            let reason = "the device returned a different message";
            self.failure = Some(StoreError { slot, reason });
        }
    }
}

impl StoreUpdate for Update<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.store(SLOTS, slot, message);
    }

    fn write_level(&mut self, slot: u16, messages: LevelMessages) {
        self.store(SLOTS, slot, messages.assert);
        self.store(SECOND, slot, messages.deassert);
    }

    fn mask(&mut self, slot: u16) {
        self.store.write(PlatformStore::control(slot), MASK);
        // The read makes sure that the device sends nothing after this function returns.
        self.store.read(PlatformStore::control(slot));
    }

    fn unmask(&mut self, slot: u16) {
        self.store.write(PlatformStore::control(slot), 0);
    }
}
