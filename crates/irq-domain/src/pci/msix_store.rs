//! MSI-X: a table in a memory region, each entry of which has its own message and mask bit.

use super::read_back::{check_memory, check_power, slot_state};
use super::{ConfigSpace, PciError, TableMemory, check_length, find};
use crate::runtime::Host;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_fallible::lock::TaskLock;
use doorbell_fallible::try_collect;
use msi_types::explain::{Explanation, Obstacle};
use msi_types::pci::msix::{
    BarOffset, CAPABILITY_ID, CONTROL, Control, ENTRY_ADDRESS_HIGH, ENTRY_ADDRESS_LOW,
    ENTRY_CONTROL, ENTRY_DATA, ENTRY_SIZE, LENGTH, PBA, TABLE, VectorControl,
};
use msi_types::{
    FastMask, Fit, Masking, MessageStore, MsiMessage, Rewrite, SlotState, Storage, StoreError,
    StoreUpdate,
};

/// Number of base address registers in a function.
const BARS: u8 = 6;

/// A function's MSI-X capability. The bus driver must map the table and the pending bits before an
/// [`MsixStore`] can be created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MsixCapability {
    /// Capability offset in configuration space.
    pub offset: u16,
    /// Number of table entries: 1 to 2048.
    pub slots: u16,
    /// BAR and offset of the table.
    pub table: BarOffset,
    /// BAR and offset of the pending bits.
    pub pending: BarOffset,
}

impl MsixCapability {
    /// Reads a function's capability.
    ///
    /// Context: task; may sleep.
    pub fn find(config: &dyn ConfigSpace) -> Result<Self, PciError> {
        let offset = find(config, CAPABILITY_ID)?;
        check_length(CAPABILITY_ID, offset, LENGTH)?;
        let offset_in = |register| BarOffset::from(config.read32(offset + register));
        let (table, pending) = (offset_in(TABLE), offset_in(PBA));
        for bir in [table.bir(), pending.bir()] {
            if bir >= BARS {
                return Err(PciError::ReservedBar { bir });
            }
        }
        let slots = Control::from(config.read16(offset + CONTROL)).table_size();
        Ok(Self { offset, slots, table, pending })
    }

    /// Returns the table's length in bytes.
    pub fn table_length(&self) -> u64 {
        u64::from(self.slots) * ENTRY_SIZE
    }

    /// Returns the length of the pending bits in bytes, rounded up to 64-bit words.
    pub fn pending_length(&self) -> u64 {
        u64::from(self.slots).div_ceil(64) * 8
    }
}

/// The mapped memory regions of a function's MSI-X structures, often the same one.
pub struct MsixRegions {
    /// Region that [`MsixCapability::table`] refers to.
    pub table: Arc<dyn TableMemory>,
    /// Region that [`MsixCapability::pending`] refers to.
    pub pending: Arc<dyn TableMemory>,
}

msi_types::debug_by!(MsixRegions as "MsixRegions", |it| {});

/// A store over a function's MSI-X table. Each entry is masked, written, read back and unmasked on
/// its own. During setup, MSI-X is enabled with the function mask set, because some functions don't
/// respond to table accesses while MSI-X is disabled.
pub struct MsixStore {
    capability: MsixCapability,
    config: Arc<dyn ConfigSpace>,
    regions: MsixRegions,
    host: Arc<dyn Host>,
    /// Vector Control for each entry, without the mask bit. These other bits must be preserved.
    controls: Vec<AtomicU32>,
    enable: TaskLock<MsixEnable>,
}

/// The state of Message Control.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum MsixEnable {
    /// MSI-X is disabled, and the table has not been accessed yet.
    Untouched,
    /// MSI-X is disabled, and the table has been accessed.
    Off,
    /// MSI-X is enabled, with the function mask set.
    Held,
    /// MSI-X is enabled, with the function mask clear.
    On,
}

impl MsixStore {
    /// Initializes the capability with MSI-X disabled.
    ///
    /// Context: task; may sleep.
    pub fn new(
        capability: MsixCapability,
        config: Arc<dyn ConfigSpace>,
        regions: MsixRegions,
        host: Arc<dyn Host>,
    ) -> Result<Self, PciError> {
        check_region(capability.table, capability.table_length(), &*regions.table)?;
        check_region(capability.pending, capability.pending_length(), &*regions.pending)?;
        let controls = try_collect((0..capability.slots).map(|_| AtomicU32::new(0)))?;
        let enable = TaskLock::new(MsixEnable::Untouched);
        let store = Self { capability, config, regions, host, controls, enable };
        store.set_control(MsixEnable::Untouched);
        Ok(store)
    }

    /// Makes the table accessible by enabling MSI-X. Unless the store is on, the function mask is
    /// set.
    fn open(&self, enable: &mut MsixEnable) {
        let untouched = *enable == MsixEnable::Untouched;
        if *enable != MsixEnable::On {
            *enable = MsixEnable::Held;
            self.set_control(*enable);
        }
        if untouched {
            self.mask_all();
        }
    }

    /// Masks all entries, in case the function's previous owner left some unmasked.
    fn mask_all(&self) {
        for (slot, control) in (0..).zip(&self.controls) {
            let found = VectorControl::from(self.read(slot, ENTRY_CONTROL)).with_masked(false);
            control.store(found.into(), Ordering::SeqCst);
            self.set_mask(slot, true);
        }
    }

    fn set_mask(&self, slot: u16, masked: bool) {
        if let Some(control) = self.controls.get(usize::from(slot)) {
            let value = VectorControl::from(control.load(Ordering::SeqCst)).with_masked(masked);
            self.write(slot, ENTRY_CONTROL, value.into());
        }
    }

    fn set_control(&self, enable: MsixEnable) {
        let (config, register) = (&self.config, self.capability.offset + CONTROL);
        let control = Control::from(config.read16(register))
            .with_enable(matches!(enable, MsixEnable::Held | MsixEnable::On))
            .with_function_mask(enable == MsixEnable::Held);
        config.write16(register, control.into());
    }

    fn check_control(&self, enabled: bool) -> Result<(), StoreError> {
        let found = self.control();
        if found.enable() == enabled && !found.function_mask() {
            return Ok(());
        }
        Err(StoreError { slot: 0, reason: "Message Control was read back with another value" })
    }

    fn control(&self) -> Control {
        Control::from(self.config.read16(self.capability.offset + CONTROL))
    }

    /// Returns the obstacle, if any, that keeps the slot from sending messages. Ignores the slot's
    /// table entry, which must only be read if this function finds no obstacle, because some
    /// functions do not respond to table accesses while MSI-X is disabled.
    fn check_table(&self, slot: u16) -> Option<Obstacle> {
        if slot >= self.slots() {
            return Some(Obstacle::NoVector { vector: slot, vectors: self.slots() });
        }
        if let Some(obstacle) = check_power(&*self.config) {
            return Some(obstacle);
        }
        if !self.control().enable() {
            return Some(Obstacle::MessagesDisabled);
        }
        check_memory(&*self.config)
    }

    fn message(&self, slot: u16) -> MsiMessage {
        let high = u64::from(self.read(slot, ENTRY_ADDRESS_HIGH));
        let low = u64::from(self.read(slot, ENTRY_ADDRESS_LOW));
        MsiMessage { address: high << 32 | low, data: self.read(slot, ENTRY_DATA) }
    }

    fn set_message(&self, slot: u16, message: MsiMessage) {
        self.write(slot, ENTRY_ADDRESS_LOW, message.address_low());
        self.write(slot, ENTRY_ADDRESS_HIGH, message.address_high());
        self.write(slot, ENTRY_DATA, message.data);
    }

    fn is_masked(&self, slot: u16) -> bool {
        VectorControl::from(self.read(slot, ENTRY_CONTROL)).masked()
    }

    /// Reads a register of an entry. `slot` must be in the table.
    fn read(&self, slot: u16, register: u64) -> u32 {
        self.regions.table.read32(self.entry_offset(slot) + register)
    }

    /// Writes a register of an entry. `slot` must be in the table.
    fn write(&self, slot: u16, register: u64, value: u32) {
        self.regions.table.write32(self.entry_offset(slot) + register, value);
    }

    fn entry_offset(&self, slot: u16) -> u64 {
        self.capability.table.offset() + u64::from(slot) * ENTRY_SIZE
    }
}

fn check_region(table: BarOffset, length: u64, region: &dyn TableMemory) -> Result<(), PciError> {
    let end = table.offset() + length;
    if end <= region.length() {
        return Ok(());
    }
    Err(PciError::OutsideBar { bir: table.bir(), end, length: region.length() })
}

impl MessageStore for MsixStore {
    fn slots(&self) -> u16 {
        self.capability.slots
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Masked)
    }

    fn masking(&self) -> Masking {
        Masking::PerVector
    }

    fn storage(&self) -> Storage {
        Storage::Bus
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        let mut enable = self.enable.lock(&*self.host);
        self.open(&mut enable);
        let mut update = Update { store: self, enable: *enable, failure: None };
        change(&mut update);
        update.failure.map_or(Ok(()), Err)
    }

    fn forget(&self) {
        *self.enable.lock(&*self.host) = MsixEnable::Untouched;
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        let mut enable = self.enable.lock(&*self.host);
        if enabled {
            self.open(&mut enable);
        }
        *enable = match (enabled, *enable) {
            (true, _) => MsixEnable::On,
            (false, MsixEnable::Untouched) => MsixEnable::Untouched,
            (false, _) => MsixEnable::Off,
        };
        self.set_control(*enable);
        self.check_control(enabled)
    }

    fn read_back(&self, slot: u16) -> Option<SlotState> {
        let mut state = slot_state(&*self.config, slot, self.check_table(slot), || {
            let pending = self.is_masked(slot).then(|| self.is_pending(slot));
            (self.message(slot), pending)
        });
        if state.message.is_some() && self.control().function_mask() {
            state.explanation =
                Explanation::stopped(Obstacle::FunctionMasked).merge(state.explanation);
        }
        Some(state)
    }

    fn fast_mask(&self) -> Option<&dyn FastMask> {
        Some(self)
    }
}

impl FastMask for MsixStore {
    fn mask(&self, slot: u16) {
        if slot < self.slots() {
            self.set_mask(slot, true);
            // Memory writes are posted; this read flushes them to the function.
            self.read(slot, ENTRY_CONTROL);
        }
    }

    fn unmask(&self, slot: u16) {
        self.set_mask(slot, false);
    }

    fn is_pending(&self, slot: u16) -> bool {
        if slot >= self.slots() {
            return false;
        }
        let word = self.capability.pending.offset() + u64::from(slot / 32) * 4;
        self.regions.pending.read32(word) >> (slot % 32) & 1 != 0
    }
}

msi_types::debug_by!(MsixStore as "MsixStore", |it| {capability: it.capability});

/// An update in progress.
struct Update<'a> {
    store: &'a MsixStore,
    enable: MsixEnable,
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
        FastMask::mask(self.store, slot);
    }

    fn unmask(&mut self, slot: u16) {
        FastMask::unmask(self.store, slot);
    }
}

impl Update<'_> {
    fn try_write(&self, slot: u16, message: MsiMessage) -> Result<(), &'static str> {
        let store = self.store;
        if slot >= store.slots() {
            return Err("the table has no such entry");
        }
        if self.enable == MsixEnable::On && !store.is_masked(slot) {
            return Err("an entry must be masked while it is rewritten");
        }
        let old = store.message(slot);
        store.set_message(slot, message);
        if store.message(slot) == message {
            return Ok(());
        }
        store.set_message(slot, old);
        Err("the function read back a different message")
    }
}
