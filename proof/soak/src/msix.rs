//! A device that signals MSI-X vectors, directly and through eventfds, while the guest masks,
//! disables and rewrites them, and the monitor saves and restores the table.

use crate::outcome::Outcome;
use fastrand::Rng;
use irq_routing::device_eventfds::DeviceEventfds;
use irq_routing::irqfd::{EventfdPoller, MessageEventfdSet};
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::{MessageSink, RoutedMessage, Sender, SignalError};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, MsiMessage};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, RwLock};
use std::time::Duration;
use std::{array, thread};

const VECTORS: usize = 8;
const SENDERS: u64 = 3;
const DOORBELL: u64 = 0x1_0809_0040;
/// Bytes of a table entry, and the offset of the vector control word.
const ENTRY: u64 = 16;
const CONTROL: u64 = 12;
/// Position of the vector's number in a message's data. The rest is the version of the message.
const VECTOR_SHIFT: u32 = 24;
/// One of this many messages reaches a slow controller.
const SLOW: u64 = 8;
/// Average number of messages that a device sends before it lets another thread run.
const PAUSE: u64 = 8;
/// One of this many signals goes through an eventfd.
const THROUGH_EVENTFD: u64 = 8;
/// One of this many guest operations is followed by a save.
const SAVE: u64 = 8;
/// Maximum time for the eventfds' signals to be served.
const LIMIT: Duration = Duration::from_mins(1);
/// Number of attempts to observe a held signal.
const PATIENCE: u32 = 10_000;

/// One vector's record.
#[derive(Default)]
struct Record {
    /// Number of the last signal. The sink reads it without ordering, because the message itself
    /// must order the accesses.
    number: AtomicU64,
    seen: AtomicU64,
    held: AtomicU64,
    arrived: AtomicU64,
    /// Number of the guest's last check of the pending bit, and of the last check after whose mask
    /// a signal began that was then held.
    check: AtomicU64,
    held_in: AtomicU64,
    /// `true` if the guest permits the vector to send.
    open: AtomicBool,
    /// Version of the message.
    version: AtomicU64,
}

#[derive(Default)]
struct Sink {
    records: [Record; VECTORS],
}

impl MessageSink for Sink {
    fn signal_msi(&self, routed: RoutedMessage) -> Result<Delivery, SignalError> {
        let MsiMessage { address, data } = routed.message;
        let record = &self.records[(data >> VECTOR_SHIFT) as usize];
        if record.arrived.fetch_add(1, SeqCst).is_multiple_of(SLOW) {
            // A masking guest must wait for a slow controller.
            thread::yield_now();
        }
        assert!(record.open.load(SeqCst), "{routed:?} was sent while masked");
        let version = u64::from(data & ((1 << VECTOR_SHIFT) - 1));
        assert_eq!(routed.message.address, address_of(version), "{routed:?} is torn");
        assert_eq!(version, record.version.load(SeqCst), "{routed:?} is not the last message");
        assert_eq!(address >> 32, DOORBELL >> 32, "{routed:?}");
        record.seen.fetch_max(record.number.load(Relaxed), SeqCst);
        Ok(Delivery::Pending)
    }
}

fn address_of(version: u64) -> u64 {
    DOORBELL + version * 4
}

/// Sends `messages` signals.
pub(crate) fn run(seed: u64, messages: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let sink = Arc::new(Sink::default());
    let sender = Sender::Device(DeviceId::new(8));
    let poller = EventfdPoller::new().unwrap();
    let _serving = rng.bool().then(|| poller.spawn().unwrap());
    let sources = Arc::new(DeviceEventfds::new(MessageEventfdSet::new(poller, sink.clone())));
    let table = MsixTable::new(8, sender, sink.clone()).unwrap().with_observer(sources.clone());
    let eventfds = array::from_fn(|vector| {
        let device = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let source = sources.add(device.try_clone().unwrap()).unwrap();
        sources.set_vector(source, Some(u16::try_from(vector).unwrap())).unwrap();
        device
    });
    let device = Device { table: &table, sink: &sink, eventfds, running: RwLock::new(()) };
    let (control, masked) = (Control::new(), [true; VECTORS]);
    let mut guest = Guest { device: &device, control, masked, checked: 0 };
    guest.open_all();
    let mut outcome = Outcome::default();
    let left = AtomicU64::new(messages.div_ceil(SENDERS) * SENDERS);
    outcome.messages = left.load(SeqCst);
    thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|_| {
                let (mut rng, device, left) = (rng.fork(), &device, &left);
                scope.spawn(move || {
                    for _ in 0..messages.div_ceil(SENDERS) {
                        device.signal(&mut rng);
                        left.fetch_sub(1, SeqCst);
                        // Without pauses, nearly all signals are sent between two guest operations.
                        if rng.u64(..PAUSE) == 0 {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        while left.load(SeqCst) > 0 {
            outcome.count("guest operations", 1);
            guest.act(&mut rng, &left);
            if rng.u64(..SAVE) == 0 {
                guest.save();
                outcome.count("saves", 1);
            }
        }
        for sender in senders {
            sender.join().unwrap();
        }
    });
    guest.open_all();
    guest.save();
    for (vector, record) in sink.records.iter().enumerate() {
        let (number, last) = (record.number.load(SeqCst), record.seen.load(SeqCst));
        assert_eq!(last, number, "the last signals of vector {vector} are lost");
        let arrived = record.arrived.load(SeqCst);
        assert!(arrived <= number, "vector {vector}: {arrived} messages for {number} signals");
        outcome.count("held", record.held.load(SeqCst));
    }
    assert_eq!(guest.pending(), 0, "pending bits of open vectors");
    outcome.count("pending bits checked", guest.checked);
    outcome
}

/// The device, whose senders signal vectors at its table or through eventfds.
struct Device<'a> {
    table: &'a MsixTable,
    sink: &'a Sink,
    eventfds: [OwnedFd; VECTORS],
    /// Senders hold this lock shared. A save holds it exclusively, which stops the device.
    running: RwLock<()>,
}

impl Device<'_> {
    fn signal(&self, rng: &mut Rng) {
        let _running = self.running.read().unwrap();
        let vector = rng.usize(..VECTORS);
        let record = &self.sink.records[vector];
        let check = record.check.load(SeqCst);
        record.number.fetch_add(1, Relaxed);
        if rng.u64(..THROUGH_EVENTFD) == 0 {
            rustix::io::write(&self.eventfds[vector], &1_u64.to_ne_bytes()).unwrap();
            return;
        }
        match self.table.signal(u16::try_from(vector).unwrap()) {
            Signaled::Held => {
                record.held.fetch_add(1, SeqCst);
                record.held_in.fetch_max(check, SeqCst);
            }
            Signaled::Sent(Delivery::Pending) => {}
            other => panic!("vector {vector}: {other:?}"),
        }
    }
}

/// The guest's driver.
struct Guest<'a> {
    device: &'a Device<'a>,
    control: Control,
    masked: [bool; VECTORS],
    /// Number of times that a pending bit was found set after a held signal.
    checked: u64,
}

impl Guest<'_> {
    fn act(&mut self, rng: &mut Rng, left: &AtomicU64) {
        let vector = rng.usize(..VECTORS);
        match rng.u8(..12) {
            0..=2 => self.set_mask(vector, true),
            3..=5 => self.set_mask(vector, false),
            6 => self.rewrite(vector),
            7 => self.set_control(self.control.with_function_mask(true)),
            8 => self.set_control(self.control.with_function_mask(false)),
            9 => self.set_control(self.control.with_enable(rng.u8(..4) != 0)),
            10 => self.check_pending(vector, left),
            _ => self.open_all(),
        }
    }

    /// Returns `true` if the masks permit the vector to send.
    fn is_open(&self, vector: usize) -> bool {
        !self.masked[vector] && self.control.enable() && !self.control.function_mask()
    }

    /// Applies a change. A vector that it opens may send from the beginning of the write on, and a
    /// vector that it closes may send until the end of the write.
    fn change(&mut self, masked: [bool; VECTORS], control: Control, write: impl FnOnce(&Self)) {
        let before: [bool; VECTORS] = array::from_fn(|vector| self.is_open(vector));
        (self.masked, self.control) = (masked, control);
        let after: [bool; VECTORS] = array::from_fn(|vector| self.is_open(vector));
        let records = &self.device.sink.records;
        for (record, is_open) in records.iter().zip(before.into_iter().zip(after)) {
            record.open.store(is_open.0 || is_open.1, SeqCst);
        }
        write(self);
        for (record, is_open) in records.iter().zip(after) {
            record.open.store(is_open, SeqCst);
        }
    }

    fn set_mask(&mut self, vector: usize, is_masked: bool) {
        let mut masked = self.masked;
        masked[vector] = is_masked;
        self.change(masked, self.control, |guest| {
            let word = u32::from(is_masked).to_le_bytes();
            guest.device.table.write(ENTRY * vector as u64 + CONTROL, &word);
        });
    }

    fn set_control(&mut self, control: Control) {
        self.change(self.masked, control, |guest| guest.device.table.write_control(control));
    }

    /// Masks a vector and writes its message, word by word.
    fn rewrite(&mut self, vector: usize) {
        self.set_mask(vector, true);
        let record = &self.device.sink.records[vector];
        let version = record.version.fetch_add(1, SeqCst) + 1;
        self.write_message(vector, version);
    }

    fn write_message(&self, vector: usize, version: u64) {
        let (address, at) = (address_of(version), ENTRY * vector as u64);
        let data = (vector as u64) << VECTOR_SHIFT | version;
        for (word, offset) in [(address, 0), (address >> 32, 4), (data, 8)] {
            let word = u32::try_from(word & u64::from(u32::MAX)).unwrap();
            self.device.table.write(at + offset, &word.to_le_bytes());
        }
    }

    fn pending(&self) -> u32 {
        let mut bytes = [0; 4];
        self.device.table.read_pending(0, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Masks a vector, and checks that its pending bit is set after a signal that began later. A
    /// signal that was held by an earlier mask may return only now.
    fn check_pending(&mut self, vector: usize, left: &AtomicU64) {
        self.set_mask(vector, true);
        let record = &self.device.sink.records[vector];
        let check = record.check.fetch_add(1, SeqCst) + 1;
        let is_held = || record.held_in.load(SeqCst) == check;
        for _ in 0..PATIENCE {
            if is_held() || left.load(SeqCst) == 0 {
                break;
            }
            thread::yield_now();
        }
        if is_held() {
            assert_ne!(self.pending() & 1 << vector, 0, "vector {vector} is not pending");
            self.checked += 1;
        }
    }

    /// Stops the device, and saves and restores the table. Afterwards, each vector's last signal
    /// must have reached the sink or be pending in the saved state.
    fn save(&self) {
        let Device { table, sink, running, .. } = self.device;
        let _stopped = running.write().unwrap();
        table.settle(LIMIT).unwrap();
        let state = table.save();
        for (vector, record) in (0_u16..).zip(&sink.records) {
            let is_sent = record.seen.load(SeqCst) == record.number.load(SeqCst);
            let is_pending = state.pending.contains(&vector);
            assert!(is_sent || is_pending, "the last signal of vector {vector} is in no state");
        }
        table.restore(&state).unwrap();
    }

    fn open_all(&mut self) {
        for vector in 0..VECTORS {
            if self.device.sink.records[vector].version.load(SeqCst) == 0 {
                self.rewrite(vector);
            }
            self.set_mask(vector, false);
        }
        self.set_control(Control::new().with_enable(true));
    }
}
