//! A function: its type 0 configuration space, memory regions and message store.

use crate::bus::AccessWidth;
use crate::lock::lock;
use crate::pci::bus_number::{BusNumber, DevFn};
use crate::pci::config_bytes::ConfigBytes;
use crate::pci::header;
use crate::pci::message_store::{PBA_BEHIND_TABLE, Signaled, Store, StoreConfig, Upstream};
use irq_domain::MessageCopy;
use msi_types::pci::msix;
use msi_types::{MsiMessage, RequesterId, SignalMsi};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// PCI vendor ID that the machine's functions use. The ID isn't assigned to any vendor.
const VENDOR: u32 = 0xd00b;
/// Device ID that all functions use.
const DEVICE: u32 = 0x0001;
/// Class code: unclassified.
const CLASS: u32 = 0xff00_0000;
/// Number of BARs in a type 0 header.
const BARS: usize = 6;
/// Address of a BAR that doesn't decode accesses.
const NOWHERE: u64 = u64::MAX;

/// Number of functions in a device: one or several.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeviceFunctions {
    /// The device has only function 0.
    One,
    /// The device has several functions.
    Multiple,
}

/// A function's parameters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FunctionConfig {
    /// The message store.
    pub store: StoreConfig,
    /// The device and function number.
    pub at: DevFn,
    /// The multi-function bit in the header.
    pub functions_in_device: DeviceFunctions,
}

/// A PCI function that does nothing but send interrupts.
pub struct Function {
    config: FunctionConfig,
    upstream: Arc<Upstream>,
    bars: Bars,
    state: Mutex<FunctionState>,
}

/// The base address of each BAR in configuration space, which can be read without the lock.
struct Bars {
    sizes: [u64; BARS],
    bases: [AtomicU64; BARS],
}

struct FunctionState {
    config: ConfigBytes,
    store: Store,
    /// Copies of the store's messages, by vector, if a driver has made any. The function then sends
    /// these, like a wireless adapter whose rings hold their own messages.
    copies: Option<BTreeMap<u16, MsiMessage>>,
    plugged: bool,
}

impl Function {
    /// Creates a function on the bus with this number. The function sends its messages to
    /// `upstream`.
    pub(super) fn new(
        config: FunctionConfig,
        number: Arc<BusNumber>,
        upstream: Arc<dyn SignalMsi<RequesterId>>,
    ) -> Self {
        let sizes = bar_sizes(config.store);
        let upstream = Arc::new(Upstream { number, at: config.at, bus: upstream });
        Self {
            config,
            bars: Bars { sizes, bases: [const { AtomicU64::new(NOWHERE) }; BARS] },
            state: Mutex::new(FunctionState::reset(config, &sizes, Arc::clone(&upstream))),
            upstream,
        }
    }

    /// Returns the parameters of the message store.
    pub fn store(&self) -> StoreConfig {
        self.config.store
    }

    /// Returns the function's requester ID.
    pub fn requester(&self) -> RequesterId {
        self.upstream.requester()
    }

    /// Sends the message for vector `index`, or marks it as pending if it is masked or the function
    /// is not a bus master.
    pub fn signal(&self, index: u16) -> Signaled {
        // Hold the lock until the message has arrived. Without the lock, the message could still be
        // sent after software has set a mask and read it back.
        let state = lock(&self.state);
        match &state.copies {
            None => state.store.signal(index),
            Some(copies) => copies.get(&index).map_or(Signaled::Off, |message| {
                Signaled::Sent(self.upstream.bus.signal_msi(self.requester(), *message))
            }),
        }
    }

    /// Returns a driver's function that copies messages into this function.
    pub fn copier(self: &Arc<Self>) -> Arc<MessageCopy> {
        let function = Arc::clone(self);
        Arc::new(move |slot, message| function.set_copy(slot, message))
    }

    /// Sets the message that the function sends for vector `index` from now on, instead of the one
    /// in its store. With `None`, the function sends nothing for this vector.
    fn set_copy(&self, index: u16, message: Option<MsiMessage>) {
        let mut state = lock(&self.state);
        let copies = state.copies.get_or_insert_default();
        match message {
            Some(message) => _ = copies.insert(index, message),
            None => _ = copies.remove(&index),
        }
    }

    /// Removes the function from its slot. Reads of the function then return all ones, and messages
    /// held back by a mask are lost.
    pub fn unplug(&self) {
        self.restart(false, &[]);
    }

    /// Reinserts the function after a reset.
    pub fn plug(&self) {
        self.restart(true, &[]);
    }

    /// Performs a function-level reset, after which the bus driver restores the header (command
    /// register and BARs). After the reset, the message store is in its power-on state, and
    /// messages held back by a mask are lost.
    pub fn reset(&self) {
        let (plugged, header): (_, Vec<_>) = {
            let state = lock(&self.state);
            let offsets = (header::COMMAND..header::BAR0 + 0x18).step_by(4);
            let word = |offset| (offset, state.config.load(offset, AccessWidth::Word));
            (state.plugged, offsets.map(word).collect())
        };
        self.restart(plugged, &header);
    }

    /// Resets the function, and writes these words of its header.
    fn restart(&self, plugged: bool, header: &[(u16, u32)]) {
        let mut state = lock(&self.state);
        let upstream = Arc::clone(&self.upstream);
        *state = FunctionState::reset(self.config, &self.bars.sizes, upstream);
        state.plugged = plugged;
        for (offset, value) in header {
            state.config.write(*offset, AccessWidth::Word, *value);
        }
        self.follow(&state);
    }

    /// Reads up to 32 bits from configuration space. Returns all ones if the slot is empty.
    pub fn config_read(&self, offset: u16, width: AccessWidth) -> u32 {
        let state = lock(&self.state);
        if !state.plugged {
            return u32::MAX;
        }
        state.store.config_read(offset, width, state.config.load(offset, width))
    }

    /// Writes up to 32 bits to configuration space.
    pub fn config_write(&self, offset: u16, width: AccessWidth, value: u32) {
        let mut state = lock(&self.state);
        if !state.plugged {
            return;
        }
        state.config.write(offset, width, value);
        state.store.config_write(offset, width, value);
        self.follow(&state);
    }

    /// Follows the command register and the BARs.
    fn follow(&self, state: &FunctionState) {
        self.bars.follow(state);
        state.store.set_bus_master(state.config.bus_master());
    }

    /// Returns the BAR that decodes `address`, and the offset of `address` in that BAR.
    pub fn region_at(&self, address: u64) -> Option<(u8, u64)> {
        let places = self.bars.bases.iter().zip(self.bars.sizes).zip(0..);
        places.into_iter().find_map(|((base, size), index)| {
            let offset = address.checked_sub(base.load(Ordering::Relaxed))?;
            (offset < size).then_some((index, offset))
        })
    }

    /// Reads an aligned word from a BAR.
    pub fn region_read(&self, bar: u8, offset: u64) -> u32 {
        let state = lock(&self.state);
        let Store::Msix(_, table) = &state.store else { return 0 };
        let mut bytes = [0; 4];
        match place(self.config.store, bar, offset) {
            Some(BarWord::Table(offset)) => table.read(offset, &mut bytes),
            Some(BarWord::Pending(offset)) => table.read_pending(offset, &mut bytes),
            None => {}
        }
        u32::from_le_bytes(bytes)
    }

    /// Writes an aligned word to a BAR.
    pub fn region_write(&self, bar: u8, offset: u64, value: u32) {
        let state = lock(&self.state);
        if let Store::Msix(_, table) = &state.store
            && let Some(BarWord::Table(offset)) = place(self.config.store, bar, offset)
        {
            table.write(offset, &value.to_le_bytes());
        }
    }
}

impl FunctionState {
    fn reset(function: FunctionConfig, sizes: &[u64; BARS], upstream: Arc<Upstream>) -> Self {
        let mut config = ConfigBytes::new();
        config.store(header::VENDOR, AccessWidth::Word, DEVICE << 16 | VENDOR);
        config.store(header::CLASS, AccessWidth::Word, CLASS);
        if function.functions_in_device == DeviceFunctions::Multiple {
            config.store(header::HEADER_TYPE, AccessWidth::Byte, u32::from(header::MULTI_FUNCTION));
        }
        let command = header::COMMAND_MEMORY | header::COMMAND_MASTER;
        config.allow(header::COMMAND, AccessWidth::Half, u32::from(command));
        for (index, size) in (0u16..).zip(sizes) {
            if *size != 0 {
                add_bar(&mut config, header::BAR0 + index * 4, *size);
            }
        }
        let express = config.add_capability(header::EXPRESS, 0x3c);
        let flags = header::PORT_ENDPOINT << 4 | 2;
        config.store(express + header::EXPRESS_FLAGS, AccessWidth::Half, u32::from(flags));
        let store = Store::add(&mut config, function.store, upstream);
        Self { config, store, copies: None, plugged: true }
    }
}

impl Bars {
    /// Copies the base addresses from configuration space to the fields that are read without the
    /// lock.
    fn follow(&self, state: &FunctionState) {
        let on =
            state.plugged && state.config.load16(header::COMMAND) & header::COMMAND_MEMORY != 0;
        for ((index, size), base) in (0u16..).zip(self.sizes).zip(&self.bases) {
            let register = header::BAR0 + index * 4;
            let word = |offset| u64::from(state.config.load(register + offset, AccessWidth::Word));
            let address = if on && size != 0 { word(4) << 32 | word(0) & !0xf } else { NOWHERE };
            base.store(address, Ordering::Relaxed);
        }
    }
}

/// Adds a 64-bit prefetchable memory BAR, which takes up two registers.
fn add_bar(config: &mut ConfigBytes, register: u16, size: u64) {
    const MEMORY_64_PREFETCHABLE: u32 = 0xc;
    config.store(register, AccessWidth::Word, MEMORY_64_PREFETCHABLE);
    let mask = !(size - 1);
    let low = u32::try_from(mask & 0xffff_fff0).unwrap_or(0);
    config.allow(register, AccessWidth::Word, low);
    config.allow(register + 4, AccessWidth::Word, u32::try_from(mask >> 32).unwrap_or(0));
}

/// Returns the size of each BAR, at the index of the BAR's first register. The size is 0 if there
/// is no BAR, and otherwise a power of two.
fn bar_sizes(config: StoreConfig) -> [u64; BARS] {
    let mut sizes = [0; BARS];
    let mut grow = |bar: u8, size: u64| {
        if let Some(place) = sizes.get_mut(usize::from(bar)) {
            *place = size.max(*place);
        }
    };
    if let StoreConfig::Msix { table_bar, pba_bar, vectors } = config {
        let table = (u64::from(vectors) * msix::ENTRY_SIZE).next_power_of_two().max(0x1000);
        grow(table_bar, if table_bar == pba_bar { 2 * u64::from(PBA_BEHIND_TABLE) } else { table });
        if table_bar != pba_bar {
            grow(pba_bar, 0x1000);
        }
    }
    sizes
}

enum BarWord {
    Table(u64),
    Pending(u64),
}

/// Decodes an offset in a BAR.
fn place(config: StoreConfig, bar: u8, offset: u64) -> Option<BarWord> {
    let StoreConfig::Msix { table_bar, pba_bar, vectors } = config else { return None };
    if bar == table_bar && offset < u64::from(vectors) * msix::ENTRY_SIZE {
        return Some(BarWord::Table(offset));
    }
    let start = if pba_bar == table_bar { u64::from(PBA_BEHIND_TABLE) } else { 0 };
    (bar == pba_bar).then(|| offset.checked_sub(start).map(BarWord::Pending))?
}

msi_types::debug_by!(Function as "Function", |it| {requester: it.requester(), config: it.config});

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::AddressWidth;
    use crate::pci::sent::SentMessages;
    use msi_types::Masking;

    fn function(store: StoreConfig) -> (Function, Arc<SentMessages>) {
        let recorder = Arc::new(SentMessages::default());
        let config = FunctionConfig {
            store,
            at: DevFn::new(1, 0),
            functions_in_device: DeviceFunctions::One,
        };
        let function = Function::new(config, Arc::default(), Arc::clone(&recorder) as _);
        function.config_write(header::COMMAND, AccessWidth::Half, 6);
        (function, recorder)
    }

    fn msix() -> (Function, Arc<SentMessages>) {
        let (function, recorder) =
            function(StoreConfig::Msix { vectors: 3, table_bar: 0, pba_bar: 2 });
        function.config_write(header::BAR0, AccessWidth::Word, 0x4000_0000);
        function.config_write(header::BAR0 + 8, AccessWidth::Word, 0x5000_0000);
        for (entry, data) in [(0, 0xa), (1, 0xb), (2, 0xc)] {
            function.region_write(0, entry * 16, 0x1000);
            function.region_write(0, entry * 16 + 8, data);
        }
        (function, recorder)
    }

    fn capability(function: &Function, id: u8) -> u16 {
        let byte = |offset| function.config_read(offset, AccessWidth::Byte);
        let mut at = byte(header::CAPABILITIES);
        while byte(u16::try_from(at).unwrap()) != u32::from(id) {
            at = byte(u16::try_from(at).unwrap() + 1);
            assert_ne!(at, 0, "the function has the capability");
        }
        u16::try_from(at).unwrap()
    }

    fn set_msix_control(function: &Function, control: msix::Control) {
        let at = capability(function, msix::CAPABILITY_ID) + msix::CONTROL;
        function.config_write(at, AccessWidth::Half, u32::from(u16::from(control)));
    }

    fn sent(recorder: &SentMessages) -> Vec<u32> {
        recorder.all().iter().map(|(_, message)| message.data).collect()
    }

    #[test]
    fn msix_messages_wait_for_bus_mastering() {
        let (function, recorder) = msix();
        set_msix_control(&function, msix::Control::new().with_enable(true));
        function.region_write(0, 12, 0);
        function.config_write(header::COMMAND, AccessWidth::Half, 2);
        assert_eq!([function.signal(0), function.signal(1)], [Signaled::Held; 2]);
        function.region_write(0, 8, 0xd);
        assert_eq!((sent(&recorder), function.region_read(2, 0)), (vec![], 0b11));
        function.config_write(header::COMMAND, AccessWidth::Half, 6);
        assert_eq!((sent(&recorder), function.region_read(2, 0)), (vec![0xd], 0b10));
    }

    #[test]
    fn msi_messages_wait_for_bus_mastering() {
        for masking in [Masking::PerVector, Masking::None] {
            let address = AddressWidth::Bits32;
            let (function, recorder) =
                function(StoreConfig::Msi { log2_vectors: 2, address, masking });
            let at = capability(&function, 5);
            function.config_write(at + 8, AccessWidth::Half, 0x40);
            function.config_write(at + 2, AccessWidth::Half, 0x21);
            function.config_write(header::COMMAND, AccessWidth::Half, 2);
            assert_eq!(function.signal(2), Signaled::Held);
            let pending = function.config_read(at + 0x10, AccessWidth::Word);
            assert_eq!(pending, if masking == Masking::PerVector { 4 } else { 0 });
            assert!(sent(&recorder).is_empty());
            function.config_write(header::COMMAND, AccessWidth::Half, 6);
            assert_eq!(sent(&recorder), [0x42]);
        }
    }

    #[test]
    fn an_unplugged_function_reads_as_all_ones() {
        let (function, _) = msix();
        function.unplug();
        assert_eq!(function.config_read(0, AccessWidth::Half) & 0xffff, 0xffff);
        assert_eq!(function.signal(0), Signaled::Off);
        function.plug();
        assert_eq!(function.config_read(header::COMMAND, AccessWidth::Half), 0);
        assert_eq!(function.region_read(0, 12), 1);
    }
}
