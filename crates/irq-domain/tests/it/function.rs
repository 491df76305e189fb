//! A PCI function with simulated registers. Writes to read-only bits are ignored, and forbidden
//! accesses panic.

use crate::mock::{Addressing, Kernel, Machine, assert_task, judge};
use irq_domain::pci::{
    AccessContext, ConfigSpace, MsiStore, MsixCapability, MsixRegions, MsixStore, PciError,
    TableMemory,
};
use irq_domain::{MsiDevice, MsiDeviceConfig};
use msi_types::pci::{msi, msix};
use msi_types::{MessageStore, MsiMessage, RequesterId};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Offset of the tests' capability.
pub(crate) const AT: u16 = 0x50;
/// Offsets of the MSI-X table and the pending bits in their region.
pub(crate) const TABLE_AT: u64 = 0x1000;
pub(crate) const PENDING_AT: u64 = 0x1800;

/// A function with configuration space, and one memory region with an MSI-X table.
#[derive(Debug)]
pub(crate) struct Function {
    bytes: Mutex<[u8; 256]>,
    /// Mask of the bits that software can change, by byte.
    writable: Mutex<[u8; 256]>,
    memory: Mutex<Vec<u32>>,
    pub(crate) context: AccessContext,
    /// Flag that makes every read return all ones.
    pub(crate) gone: AtomicBool,
    /// Configuration or memory offset to which writes are ignored.
    pub(crate) stuck: Mutex<Option<u64>>,
    /// Log of configuration writes: offset and value.
    pub(crate) written: Mutex<Vec<(u16, u32)>>,
}

impl Function {
    fn empty(context: AccessContext) -> Self {
        Self {
            bytes: Mutex::new([0; 256]),
            writable: Mutex::new([0; 256]),
            memory: Mutex::new(vec![0; 0x800]),
            context,
            gone: AtomicBool::new(false),
            stuck: Mutex::new(None),
            written: Mutex::new(Vec::new()),
        }
    }

    /// Creates a function whose only capability is MSI, with the given features.
    pub(crate) fn with_msi(control: msi::Control, context: AccessContext) -> Arc<Self> {
        let function = Self::empty(context);
        function.set_list(&[(AT, msi::CAPABILITY_ID, 0)]);
        function.set(AT + msi::CONTROL, &u16::from(control).to_le_bytes());
        let layout = msi::Layout::new(control);
        let changeable = msi::Control::new().with_enable(true).with_multiple_message_enable(7);
        let changeable = changeable.with_extended_data_enable(control.extended_data_capable());
        function.allow(AT + msi::CONTROL, &u16::from(changeable).to_le_bytes());
        function.allow(AT + msi::ADDRESS_LOW, &0xffff_fffcu32.to_le_bytes());
        if let Some(high) = layout.address_high() {
            function.allow(AT + high, &[0xff; 4]);
        }
        function.allow(AT + layout.data(), &[0xff; 2]);
        if control.extended_data_capable() {
            function.allow(AT + layout.extended_data(), &[0xff; 2]);
        }
        if let Some(mask) = layout.mask() {
            function.allow(AT + mask, &[0xff; 4]);
        }
        Arc::new(function)
    }

    /// Creates a function whose only capability is MSI-X, with `slots` unmasked entries.
    pub(crate) fn with_msix(slots: u16) -> Arc<Self> {
        let function = Self::empty(AccessContext::Task);
        function.set_list(&[(AT, msix::CAPABILITY_ID, 0)]);
        let control = msix::Control::new().with_table_size_minus_one(slots - 1);
        function.set(AT + msix::CONTROL, &u16::from(control).to_le_bytes());
        let changeable = msix::Control::new().with_enable(true).with_function_mask(true);
        function.allow(AT + msix::CONTROL, &u16::from(changeable).to_le_bytes());
        function.set_places(2, 2);
        Arc::new(function)
    }

    pub(crate) fn set_places(&self, table: u8, pending: u8) {
        let place = |bir, at: u64| {
            let qwords = u32::try_from(at / 8).unwrap();
            u32::from(msix::BarOffset::new().with_bir(bir).with_offset_in_qwords(qwords))
        };
        self.set(AT + msix::TABLE, &place(table, TABLE_AT).to_le_bytes());
        self.set(AT + msix::PBA, &place(pending, PENDING_AT).to_le_bytes());
    }

    /// Creates a function with a capability at each given offset, with its ID and next pointer.
    pub(crate) fn with_list(list: &[(u16, u8, u8)]) -> Arc<Self> {
        let function = Self::empty(AccessContext::Any);
        function.set_list(list);
        Arc::new(function)
    }

    pub(crate) fn set_list(&self, list: &[(u16, u8, u8)]) {
        self.set(0x06, &0x10u16.to_le_bytes());
        if let Some((first, ..)) = list.first() {
            self.set(0x34, &[u8::try_from(*first).unwrap()]);
        }
        for (at, id, next) in list {
            self.set(*at, &[*id, *next]);
        }
    }

    pub(crate) fn set(&self, at: u16, bytes: &[u8]) {
        self.bytes.lock().unwrap()[usize::from(at)..][..bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&self, at: u16, bits: &[u8]) {
        self.writable.lock().unwrap()[usize::from(at)..][..bits.len()].copy_from_slice(bits);
    }

    /// Checks that configuration space behind a mailbox is only accessed by tasks.
    fn check_context(&self) {
        if self.context == AccessContext::Task {
            assert_task();
        }
    }

    fn get<const N: usize>(&self, at: u16) -> [u8; N] {
        self.check_context();
        assert!(usize::from(at).is_multiple_of(N), "unaligned access of {N} bytes at {at:#x}");
        if self.gone.load(Ordering::Relaxed) {
            return [0xff; N];
        }
        self.own(at)
    }

    fn put<const N: usize>(&self, at: u16, value: [u8; N]) {
        self.check_context();
        assert!(usize::from(at).is_multiple_of(N), "unaligned access of {N} bytes at {at:#x}");
        let mut wide = [0; 4];
        wide[..N].copy_from_slice(&value);
        self.written.lock().unwrap().push((at, u32::from_le_bytes(wide)));
        if self.gone.load(Ordering::Relaxed) || *self.stuck.lock().unwrap() == Some(u64::from(at)) {
            return;
        }
        let writable = *self.writable.lock().unwrap();
        let mut bytes = self.bytes.lock().unwrap();
        for (offset, value) in (usize::from(at)..).zip(value) {
            bytes[offset] = (bytes[offset] & !writable[offset]) | (value & writable[offset]);
        }
    }

    /// Returns configuration space at `at`, as the function itself sees it.
    fn own<const N: usize>(&self, at: u16) -> [u8; N] {
        self.bytes.lock().unwrap()[usize::from(at)..][..N].try_into().unwrap()
    }

    /// Performs a function-level reset: clears all writable bits, and masks the table's entries.
    pub(crate) fn reset(&self) {
        let writable = *self.writable.lock().unwrap();
        for (byte, writable) in self.bytes.lock().unwrap().iter_mut().zip(writable) {
            *byte &= !writable;
        }
        let mut memory = self.memory.lock().unwrap();
        memory.fill(0);
        let entry = usize::try_from(msix::ENTRY_SIZE / 4).unwrap();
        let table = &mut memory[Self::word(TABLE_AT)..Self::word(PENDING_AT)];
        for control in table.iter_mut().skip(Self::word(msix::ENTRY_CONTROL)).step_by(entry) {
            *control = 1;
        }
    }

    pub(crate) fn msi_control(&self) -> msi::Control {
        msi::Control::from(u16::from_le_bytes(self.own(AT + msi::CONTROL)))
    }

    pub(crate) fn msix_control(&self) -> msix::Control {
        msix::Control::from(u16::from_le_bytes(self.own(AT + msix::CONTROL)))
    }

    /// Returns a register of an MSI-X entry, as the device sees it.
    pub(crate) fn entry(&self, slot: u16, register: u64) -> u32 {
        self.memory.lock().unwrap()
            [Self::word(TABLE_AT + u64::from(slot) * msix::ENTRY_SIZE + register)]
    }

    pub(crate) fn entry_message(&self, slot: u16) -> MsiMessage {
        let high = u64::from(self.entry(slot, msix::ENTRY_ADDRESS_HIGH));
        let low = u64::from(self.entry(slot, msix::ENTRY_ADDRESS_LOW));
        MsiMessage { address: high << 32 | low, data: self.entry(slot, msix::ENTRY_DATA) }
    }

    pub(crate) fn set_memory(&self, offset: u64, value: u32) {
        self.memory.lock().unwrap()[Self::word(offset)] = value;
    }

    fn word(offset: u64) -> usize {
        assert!(offset.is_multiple_of(4), "unaligned memory access at {offset:#x}");
        usize::try_from(offset / 4).unwrap()
    }

    /// Checks that an entry is rewritten only while the device cannot send its message.
    fn check_table_write(&self, offset: u64) {
        let Some(in_table) =
            offset.checked_sub(TABLE_AT).filter(|in_table| *in_table < PENDING_AT - TABLE_AT)
        else {
            panic!("wrote outside the table, at {offset:#x}");
        };
        let slot = u16::try_from(in_table / msix::ENTRY_SIZE).unwrap();
        let register = in_table % msix::ENTRY_SIZE;
        let masked = self.entry(slot, msix::ENTRY_CONTROL) & 1 != 0;
        let live = self.msix_control().enable() && !self.msix_control().function_mask();
        assert!(register == msix::ENTRY_CONTROL || masked || !live, "rewrote a live entry");
    }

    pub(crate) fn msi_store(self: &Arc<Self>) -> Result<MsiStore, PciError> {
        MsiStore::new(self.clone(), Arc::new(Kernel))
    }

    pub(crate) fn msix_store(self: &Arc<Self>) -> Result<MsixStore, PciError> {
        let capability = MsixCapability::find(&**self)?;
        let regions = MsixRegions { table: self.clone(), pending: self.clone() };
        MsixStore::new(capability, self.clone(), regions, Arc::new(Kernel))
    }
}

impl ConfigSpace for Function {
    fn read8(&self, offset: u16) -> u8 {
        u8::from_le_bytes(self.get(offset))
    }

    fn read16(&self, offset: u16) -> u16 {
        u16::from_le_bytes(self.get(offset))
    }

    fn read32(&self, offset: u16) -> u32 {
        u32::from_le_bytes(self.get(offset))
    }

    fn write8(&self, offset: u16, value: u8) {
        self.put(offset, value.to_le_bytes());
    }

    fn write16(&self, offset: u16, value: u16) {
        self.put(offset, value.to_le_bytes());
    }

    fn write32(&self, offset: u16, value: u32) {
        self.put(offset, value.to_le_bytes());
    }

    fn context(&self) -> AccessContext {
        self.context
    }
}

impl TableMemory for Function {
    fn length(&self) -> u64 {
        self.memory.lock().unwrap().len() as u64 * 4
    }

    /// Reads the table. MSI-X must be enabled, because some functions do not respond otherwise.
    fn read32(&self, offset: u64) -> u32 {
        if self.gone.load(Ordering::Relaxed) {
            return u32::MAX;
        }
        judge(self.msix_control().enable(), "the table was read while MSI-X is off");
        self.memory.lock().unwrap()[Self::word(offset)]
    }

    fn write32(&self, offset: u64, value: u32) {
        if self.gone.load(Ordering::Relaxed) || *self.stuck.lock().unwrap() == Some(offset) {
            return;
        }
        judge(self.msix_control().enable(), "the table was written while MSI-X is off");
        self.check_table_write(offset);
        self.memory.lock().unwrap()[Self::word(offset)] = value;
    }
}

/// Creates a machine, and attaches a device with the given store.
pub(crate) fn attach(kind: Addressing, store: Arc<dyn MessageStore>) -> (Machine, MsiDevice) {
    let machine = Machine::new(kind);
    let config = MsiDeviceConfig::new(
        "01:00.0",
        RequesterId::pci(1, 0, 0),
        machine.controller.clone(),
        store,
    );
    let device = MsiDevice::attach(&machine.interrupts, config).unwrap();
    (machine, device)
}
