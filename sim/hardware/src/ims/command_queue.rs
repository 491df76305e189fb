//! A device that stores its messages internally. Software changes these messages with commands,
//! which take time to execute.

use crate::bus::{AccessWidth, MmioDevice};
use crate::lock::lock;
use crate::pci::Signaled;
use crate::platform::CpuBus;
use crate::ram::{Publication, Ram};
use msi_types::{
    Delivery, Fit, Masking, MessageStore, MsiMessage, RequesterId, Rewrite, SignalMsi, StoreError,
    StoreUpdate,
};
use std::sync::{Arc, Mutex};

/// The device's registers. All registers except the queue address are 32 bits wide.
mod registers {
    /// Number of messages. Read-only.
    pub(super) const COUNT: u64 = 0x00;
    /// Bit 0: the device may send messages.
    pub(super) const CONTROL: u64 = 0x04;
    /// Queue address, 64 bits.
    pub(super) const QUEUE: u64 = 0x08;
    /// Number of commands that software has written. The count doesn't wrap when the queue, which
    /// is a ring, wraps.
    pub(super) const TAIL: u64 = 0x10;
    /// Number of commands that the device has executed. Read-only. Each read of this register gives
    /// the device time to execute one more command.
    pub(super) const HEAD: u64 = 0x14;
    /// 1 if the device rejected the oldest command in the queue. Writing this register drops all
    /// queued commands.
    pub(super) const REFUSED: u64 = 0x18;
}

/// Number of commands that fit into the queue.
const CAPACITY: u32 = 64;
/// Size of a command (slot and operation, address, data) in bytes.
const COMMAND: u64 = 24;
/// Number of times that the driver reads the head before it gives up. The device executes a command
/// on each read.
const PATIENCE: u32 = 4 * CAPACITY;

/// A command's operation.
#[derive(Clone, Copy)]
enum Operation {
    Write(MsiMessage),
    Mask,
    Unmask,
    Clear,
}

impl Operation {
    fn code(self) -> u64 {
        match self {
            Self::Write(_) => 1,
            Self::Mask => 2,
            Self::Unmask => 3,
            Self::Clear => 4,
        }
    }

    fn decode(code: u64, message: MsiMessage) -> Option<Self> {
        match code {
            1 => Some(Self::Write(message)),
            2 => Some(Self::Mask),
            3 => Some(Self::Unmask),
            4 => Some(Self::Clear),
            _ => None,
        }
    }
}

/// A message stored in the device.
#[derive(Clone, Copy)]
struct Entry {
    message: Option<MsiMessage>,
    masked: bool,
    waiting: bool,
}

const EMPTY: Entry = Entry { message: None, masked: true, waiting: false };

/// The hardware side.
pub struct QueueDevice {
    requester: RequesterId,
    ram: Arc<Ram>,
    upstream: Arc<dyn SignalMsi<RequesterId>>,
    state: Mutex<QueueState>,
}

struct QueueState {
    enabled: bool,
    queue: u64,
    head: u32,
    tail: u32,
    refused: bool,
    entries: Vec<Entry>,
    /// Number of message writes that remain until the device rejects one.
    refuse_in: Option<u32>,
}

impl QueueDevice {
    /// Size of the register region in bytes.
    pub const SIZE: u64 = 0x1000;

    /// Creates a device with this many entries that sends its messages to `upstream`.
    pub fn new(
        requester: RequesterId,
        messages: u16,
        ram: Arc<Ram>,
        upstream: Arc<dyn SignalMsi<RequesterId>>,
    ) -> Self {
        let state = QueueState {
            enabled: false,
            queue: 0,
            head: 0,
            tail: 0,
            refused: false,
            entries: vec![EMPTY; messages.into()],
            refuse_in: None,
        };
        Self { requester, ram, upstream, state: Mutex::new(state) }
    }

    /// Makes the device accept the next `writes` message writes and reject the one after them.
    pub fn refuse_after(&self, writes: u32) {
        lock(&self.state).refuse_in = Some(writes);
    }

    /// Returns the number of messages in the store.
    pub fn messages(&self) -> usize {
        lock(&self.state).entries.iter().filter(|entry| entry.message.is_some()).count()
    }

    /// Sends the message in `slot`, or holds it back while the slot's entry is masked.
    pub fn signal(&self, slot: u16) -> Signaled {
        let mut state = lock(&self.state);
        let QueueState { enabled: true, entries, .. } = &mut *state else { return Signaled::Off };
        match entries.get_mut(usize::from(slot)) {
            Some(Entry { masked: false, message: Some(message), .. }) => {
                Signaled::Sent(self.send(*message))
            }
            Some(entry) => {
                entry.waiting = true;
                Signaled::Held
            }
            None => Signaled::Off,
        }
    }

    fn send(&self, message: MsiMessage) -> Delivery {
        self.upstream.signal_msi(self.requester, message)
    }

    /// Executes one command, unless the device has rejected a command.
    fn step(&self, state: &mut QueueState) {
        if state.refused || state.head == state.tail {
            return;
        }
        match self.command(state).and_then(|(slot, operation)| self.execute(state, slot, operation))
        {
            Some(()) => state.head = state.head.wrapping_add(1),
            None => state.refused = true,
        }
    }

    fn command(&self, state: &QueueState) -> Option<(usize, Operation)> {
        let at = place(state.queue, state.head)?;
        let load = |word: u64| self.ram.device_load64(at + word * 8);
        let [code, slot, ..] = load(0)?.to_le_bytes();
        let message = MsiMessage { address: load(1)?, data: u32::try_from(load(2)?).ok()? };
        Some((usize::from(slot), Operation::decode(code.into(), message)?))
    }

    fn execute(&self, state: &mut QueueState, slot: usize, operation: Operation) -> Option<()> {
        if let (Operation::Write(_), Some(left)) = (operation, state.refuse_in) {
            state.refuse_in = left.checked_sub(1);
            state.refuse_in?;
        }
        let enabled = state.enabled;
        let entry = state.entries.get_mut(slot)?;
        match operation {
            // The device rejects writes to an entry that isn't masked.
            Operation::Write(_) if !entry.masked => return None,
            Operation::Write(message) => entry.message = Some(message),
            Operation::Mask => entry.masked = true,
            Operation::Clear => *entry = EMPTY,
            Operation::Unmask => {
                entry.masked = false;
                if enabled && std::mem::take(&mut entry.waiting) {
                    let message = entry.message?;
                    self.send(message);
                }
            }
        }
        Some(())
    }
}

/// Returns the address of a command in the queue.
fn place(queue: u64, index: u32) -> Option<u64> {
    queue.checked_add(u64::from(index % CAPACITY) * COMMAND)
}

impl MmioDevice for QueueDevice {
    fn read(&self, offset: u64, _width: AccessWidth) -> u64 {
        let mut state = lock(&self.state);
        match offset {
            registers::COUNT => u64::try_from(state.entries.len()).unwrap_or(0),
            registers::CONTROL => u64::from(state.enabled),
            registers::QUEUE => state.queue,
            registers::TAIL => u64::from(state.tail),
            registers::HEAD => {
                let head = state.head;
                self.step(&mut state);
                u64::from(head)
            }
            registers::REFUSED => u64::from(state.refused),
            _ => 0,
        }
    }

    fn write(&self, offset: u64, _width: AccessWidth, value: u64) {
        let mut state = lock(&self.state);
        match (offset, u32::try_from(value)) {
            (registers::CONTROL, _) => state.enabled = value & 1 != 0,
            (registers::QUEUE, _) => state.queue = value & !7,
            (registers::TAIL, Ok(tail)) => state.tail = tail,
            (registers::REFUSED, _) => {
                state.refused = false;
                state.head = state.tail;
            }
            _ => {}
        }
    }
}

msi_types::debug_by!(QueueDevice as "QueueDevice", |it| {requester: it.requester});

/// The driver side.
#[derive(Debug)]
pub struct QueueStore {
    bus: CpuBus,
    ram: Arc<Ram>,
    registers: u64,
    queue: u64,
    slots: u16,
    /// The device lock, which holds the number of commands that have been written.
    tail: Mutex<u32>,
}

impl QueueStore {
    /// Takes over the device at `registers`. Returns `None` if memory for its queue can't be
    /// allocated.
    pub fn new(bus: CpuBus, ram: Arc<Ram>, registers: u64) -> Option<Self> {
        let slots = u16::try_from(bus.read32(registers + registers::COUNT)).ok()?;
        let queue = ram.allocate(u64::from(CAPACITY) * COMMAND, 64)?;
        let tail = bus.read32(registers + registers::TAIL);
        let store = Self { bus, ram, registers, queue, slots, tail: Mutex::new(tail) };
        store.bus.write(registers + registers::QUEUE, AccessWidth::Double, queue);
        Some(store)
    }

    fn read(&self, register: u64) -> u32 {
        self.bus.read32(self.registers + register)
    }

    fn write(&self, register: u64, value: u32) {
        self.bus.write(self.registers + register, AccessWidth::Word, value.into());
    }

    /// Posts commands and waits until they have been executed.
    fn post(&self, tail: &mut u32, batch: &[(u16, Operation)]) -> Result<(), StoreError> {
        let first = *tail;
        for (slot, operation) in batch {
            self.put(*tail, *slot, *operation)?;
            *tail = tail.wrapping_add(1);
        }
        self.write(registers::TAIL, *tail);
        for _ in 0..PATIENCE {
            if self.read(registers::HEAD) == *tail {
                return Ok(());
            }
            if self.read(registers::REFUSED) != 0 {
                let failed = self.read(registers::HEAD).wrapping_sub(first);
                self.write(registers::REFUSED, 1);
                return Err(failure(batch, failed, "the device refused the command"));
            }
        }
        Err(failure(batch, 0, "the device does not execute its commands"))
    }

    fn put(&self, index: u32, slot: u16, operation: Operation) -> Result<(), StoreError> {
        let beyond = StoreError { slot, reason: "the device's queue lies outside of memory" };
        let at = place(self.queue, index).ok_or(beyond)?;
        let message = match operation {
            Operation::Write(message) => message,
            Operation::Mask | Operation::Unmask | Operation::Clear => MsiMessage::default(),
        };
        let words =
            [u64::from(slot) << 8 | operation.code(), message.address, u64::from(message.data)]
                .into_iter();
        for (word, address) in words.zip((at..).step_by(8)) {
            self.ram.cpu_store64(address, word);
        }
        self.ram.publish(at..at + COMMAND, Publication::Clean);
        Ok(())
    }
}

fn failure(batch: &[(u16, Operation)], index: u32, reason: &'static str) -> StoreError {
    let slot =
        usize::try_from(index).ok().and_then(|index| batch.get(index)).map_or(0, |(slot, _)| *slot);
    StoreError { slot, reason }
}

impl MessageStore for QueueStore {
    fn slots(&self) -> u16 {
        self.slots
    }

    fn fit(&self) -> Fit {
        Fit::new(Rewrite::Masked)
    }

    fn masking(&self) -> Masking {
        Masking::PerVector
    }

    fn update(&self, change: &mut dyn FnMut(&mut dyn StoreUpdate)) -> Result<(), StoreError> {
        let mut tail = lock(&self.tail);
        let mut batch = Batch(Vec::new());
        change(&mut batch);
        let most = usize::try_from(CAPACITY).unwrap_or(usize::MAX);
        batch.0.chunks(most).try_for_each(|commands| self.post(&mut tail, commands))
    }

    fn set_enabled(&self, enabled: bool) -> Result<(), StoreError> {
        self.write(registers::CONTROL, enabled.into());
        Ok(())
    }
}

impl Drop for QueueStore {
    fn drop(&mut self) {
        self.write(registers::CONTROL, 0);
        self.ram.release(self.queue, u64::from(CAPACITY) * COMMAND);
    }
}

/// Commands that haven't been posted yet.
struct Batch(Vec<(u16, Operation)>);

impl StoreUpdate for Batch {
    fn write(&mut self, slot: u16, message: MsiMessage) {
        self.0.push((slot, Operation::Write(message)));
    }

    fn mask(&mut self, slot: u16) {
        self.0.push((slot, Operation::Mask));
    }

    fn unmask(&mut self, slot: u16) {
        self.0.push((slot, Operation::Unmask));
    }

    fn clear(&mut self, slot: u16) {
        self.0.push((slot, Operation::Clear));
    }
}
