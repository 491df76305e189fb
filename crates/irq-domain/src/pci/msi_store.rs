//! MSI: a single message in configuration space, from which the function derives up to 32.

use super::read_back::{check_power, slot_state};
use super::{AccessContext, ConfigSpace, PciError, check_length, find};
use crate::runtime::Host;
use alloc::sync::Arc;
use core::num::NonZeroU16;
use doorbell_fallible::lock::{IrqLock, TaskLock};
use msi_types::explain::Obstacle;
use msi_types::pci::msi::{ADDRESS_LOW, CAPABILITY_ID, CONTROL, Control, Layout};
use msi_types::{
    FastMask, Fit, Masking, MessageStore, MsiMessage, Rewrite, SlotState, Storage, StoreError,
    StoreUpdate,
};

/// Highest valid value of Multiple Message Capable; higher ones are reserved.
const MAX_LOG2: u8 = 5;

/// A store over a function's MSI capability. Its vectors form one group: slot 0 holds the message,
/// and the other slots have at most a mask bit.
///
/// | the function has | [`Fit::rewrite`] | masking in any context |
/// |---|---|---|
/// | mask bits | [`Rewrite::Masked`] | if the configuration space allows |
/// | none | [`Rewrite::LowWordOnly`]: configuration writes have 32 bits | by the controller |
pub struct MsiStore {
    registers: Registers,
    host: Arc<dyn Host>,
    log2_capable: u8,
    state: TaskLock<Control>,
    masks: Masks,
}

/// The last value written to the mask bits, a single register for all vectors.
enum Masks {
    /// The mask bits are written by both tasks and handlers.
    Any(IrqLock<u32>),
    /// The mask bits are written only by tasks, because accesses may sleep.
    Task(TaskLock<u32>),
}

impl MsiStore {
    /// Finds the capability and initializes it with MSI disabled and all vectors masked.
    ///
    /// Context: task; may sleep.
    pub fn new(config: Arc<dyn ConfigSpace>, host: Arc<dyn Host>) -> Result<Self, PciError> {
        let offset = find(&*config, CAPABILITY_ID)?;
        check_length(CAPABILITY_ID, offset, ADDRESS_LOW)?;
        let control = Control::from(config.read16(offset + CONTROL));
        let layout = Layout::new(control);
        check_length(CAPABILITY_ID, offset, layout.length())?;
        let log2_capable = control.multiple_message_capable();
        if log2_capable > MAX_LOG2 {
            return Err(PciError::ReservedVectorCount { log2: log2_capable });
        }
        let extended = control.extended_data_capable();
        let quiet = control
            .with_enable(false)
            .with_multiple_message_enable(0)
            .with_extended_data_enable(extended);
        let registers = Registers { config, offset, layout, extended };
        registers.set_control(quiet);
        registers.set_masks(u32::MAX);
        let masks = match registers.config.context() {
            AccessContext::Any => Masks::Any(IrqLock::new(u32::MAX)),
            AccessContext::Task => Masks::Task(TaskLock::new(u32::MAX)),
        };
        Ok(Self { registers, host, log2_capable, state: TaskLock::new(quiet), masks })
    }

    /// Returns the obstacle, if any, that keeps the slot from sending messages. Ignores the slot's
    /// mask.
    fn check_enabled(&self, slot: u16) -> Option<Obstacle> {
        if slot >= self.slots() {
            return Some(Obstacle::NoVector { vector: slot, vectors: self.slots() });
        }
        if let Some(obstacle) = check_power(&*self.registers.config) {
            return Some(obstacle);
        }
        (!self.registers.control().enable()).then_some(Obstacle::MessagesDisabled)
    }

    fn set_mask(&self, slot: u16, change: impl FnOnce(u32, u32) -> u32) {
        if let Some(bit) = 1u32.checked_shl(u32::from(slot)) {
            self.set_masks(|masks| change(masks, bit));
        }
    }

    fn set_masks(&self, change: impl FnOnce(u32) -> u32) {
        let write = |masks: &mut u32| {
            *masks = change(*masks);
            self.registers.set_masks(*masks);
        };
        match &self.masks {
            Masks::Any(masks) => write(&mut masks.lock(&*self.host)),
            Masks::Task(masks) => write(&mut masks.lock(&*self.host)),
        }
    }
}

impl MessageStore for MsiStore {
    fn slots(&self) -> u16 {
        1 << self.log2_capable
    }

    fn fit(&self) -> Fit {
        let registers = &self.registers;
        Fit::new(match self.masking() {
            Masking::PerVector => Rewrite::Masked,
            Masking::None => Rewrite::LowWordOnly,
        })
        .with_address_bits(if registers.layout.address_high().is_some() { 64 } else { 32 })
        .with_data_bits(if registers.extended { 32 } else { 16 })
    }

    fn masking(&self) -> Masking {
        if self.registers.layout.mask().is_some() { Masking::PerVector } else { Masking::None }
    }

    fn storage(&self) -> Storage {
        Storage::Bus
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        let control = self.state.lock(&*self.host);
        let mut update = Update { store: self, enabled: control.enable(), failure: None };
        change(&mut update);
        update.failure.map_or(Ok(()), Err)
    }

    fn forget(&self) {
        let mut control = self.state.lock(&*self.host);
        *control = control.with_enable(false);
        self.registers.set_control(*control);
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        let mut control = self.state.lock(&*self.host);
        let wanted = control.with_enable(enabled);
        self.registers.set_control(wanted);
        *control = wanted;
        self.registers.check_control(wanted)
    }

    fn grant(&self, vectors: NonZeroU16) -> Result<(), StoreError> {
        let log2 = u8::try_from(vectors.ilog2()).unwrap_or(u8::MAX);
        if log2 > self.log2_capable || !vectors.is_power_of_two() {
            return Err(StoreError {
                slot: 0,
                reason: "more vectors were granted than the function can use",
            });
        }
        let mut control = self.state.lock(&*self.host);
        let wanted = control.with_multiple_message_enable(log2);
        self.registers.set_control(wanted);
        *control = wanted;
        self.registers.check_control(wanted)
    }

    fn read_back(&self, slot: u16) -> Option<SlotState> {
        Some(slot_state(&*self.registers.config, slot, self.check_enabled(slot), || {
            let is_masked = self.registers.read_masks() >> slot & 1 != 0;
            let pending = is_masked.then(|| self.is_pending(slot));
            (self.registers.sent_message(slot), pending)
        }))
    }

    fn fast_mask(&self) -> Option<&dyn FastMask> {
        let possible = self.masking() == Masking::PerVector && matches!(self.masks, Masks::Any(_));
        possible.then_some(self)
    }
}

impl FastMask for MsiStore {
    fn mask(&self, slot: u16) {
        self.set_mask(slot, |masks, bit| masks | bit);
        // Configuration writes aren't supposed to be posted, but the read is cheap and flushes the
        // write through bridges that post it anyway.
        self.registers.read_masks();
    }

    fn unmask(&self, slot: u16) {
        self.set_mask(slot, |masks, bit| masks & !bit);
    }

    fn is_pending(&self, slot: u16) -> bool {
        let bit = 1u32.checked_shl(u32::from(slot)).unwrap_or(0);
        self.registers.read_pending() & bit != 0
    }
}

msi_types::debug_by!(MsiStore as "MsiStore", |it| {slots: it.slots(), fit: it.fit()});

/// An update in progress.
struct Update<'a> {
    store: &'a MsiStore,
    enabled: bool,
    failure: Option<StoreError>,
}

impl StoreUpdate for Update<'_> {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        if self.failure.is_some() {
            return;
        }
        self.failure =
            self.try_write(slot, message).err().map(|reason| StoreError { slot, reason });
    }

    fn mask(&mut self, slot: u16) {
        if self.store.masking() == Masking::PerVector {
            self.store.set_mask(slot, |masks, bit| masks | bit);
        }
    }

    fn unmask(&mut self, slot: u16) {
        if self.store.masking() == Masking::PerVector {
            self.store.set_mask(slot, |masks, bit| masks & !bit);
        }
    }
}

impl Update<'_> {
    fn try_write(&self, slot: u16, message: MsiMessage) -> Result<(), &'static str> {
        let registers = &self.store.registers;
        if slot != 0 {
            return Err("MSI has one message, in slot 0");
        }
        if self.store.fit().check(message).is_err() {
            return Err("the message is wider than the function's registers");
        }
        let old = registers.message();
        let torn = old.address_high() != message.address_high() || old.data != message.data;
        if self.enabled && torn && self.store.masking() == Masking::None {
            return Err("without mask bits, only the low address word can change while enabled");
        }
        registers.replace(old, message);
        if registers.message() == message {
            return Ok(());
        }
        registers.replace(message, old);
        Err("the function read back a different message")
    }
}

/// Capability registers.
struct Registers {
    config: Arc<dyn ConfigSpace>,
    offset: u16,
    layout: Layout,
    /// `true` if the data register is 32 bits wide.
    extended: bool,
}

impl Registers {
    fn message(&self) -> MsiMessage {
        let low = self.config.read32(self.offset + ADDRESS_LOW);
        let high =
            self.layout.address_high().map_or(0, |high| self.config.read32(self.offset + high));
        let data = self.offset + self.layout.data();
        MsiMessage {
            address: u64::from(high) << 32 | u64::from(low),
            data: if self.extended {
                self.config.read32(data)
            } else {
                u32::from(self.config.read16(data))
            },
        }
    }

    /// Returns the message that the function sends for a slot. The function replaces as many low
    /// bits of the data with the slot's number as Multiple Message Enable specifies.
    fn sent_message(&self, slot: u16) -> MsiMessage {
        let base = self.message();
        let replaced = (1u32 << self.control().multiple_message_enable().min(MAX_LOG2)) - 1;
        MsiMessage { data: base.data & !replaced | u32::from(slot) & replaced, ..base }
    }

    fn control(&self) -> Control {
        Control::from(self.config.read16(self.offset + CONTROL))
    }

    /// Writes only the registers whose values differ. If the function has no mask bits, only the
    /// low address word may differ.
    fn replace(&self, old: MsiMessage, new: MsiMessage) {
        if let Some(high) = self.layout.address_high()
            && old.address_high() != new.address_high()
        {
            self.config.write32(self.offset + high, new.address_high());
        }
        let data = self.offset + self.layout.data();
        if old.data != new.data {
            if self.extended {
                self.config.write32(data, new.data);
            } else {
                self.config.write16(data, u16::try_from(new.data).unwrap_or(u16::MAX));
            }
        }
        if old.address_low() != new.address_low() {
            self.config.write32(self.offset + ADDRESS_LOW, new.address_low());
        }
    }

    fn set_control(&self, control: Control) {
        self.config.write16(self.offset + CONTROL, control.into());
    }

    fn check_control(&self, wanted: Control) -> Result<(), StoreError> {
        let found = self.control();
        let same = found.enable() == wanted.enable()
            && found.multiple_message_enable() == wanted.multiple_message_enable();
        if same {
            Ok(())
        } else {
            Err(StoreError { slot: 0, reason: "Message Control was read back with another value" })
        }
    }

    fn set_masks(&self, masks: u32) {
        if let Some(mask) = self.layout.mask() {
            self.config.write32(self.offset + mask, masks);
        }
    }

    fn read_masks(&self) -> u32 {
        self.layout.mask().map_or(0, |mask| self.config.read32(self.offset + mask))
    }

    fn read_pending(&self) -> u32 {
        self.layout.pending().map_or(0, |pending| self.config.read32(self.offset + pending))
    }
}
