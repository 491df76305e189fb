//! The ledger of a run, which compares each vector's messages with its handler runs, and checks that
//! each handler ran on a CPU that the vector targeted.
//!
//! # Records
//! Each message carries a sequence number in memory. The device stores the sequence number, records
//! the time, and sends the message. Time is a counter ([`Clock`]) that advances with every recorded
//! event.
//!
//! A [`Route`] records when each CPU could receive the vector's messages. A CPU is *open* while it
//! is the vector's target, and while the vector may be moving to it. The CPU is *closed* once the
//! vector has finished moving away from it.
//!
//! The ledger doesn't use the controllers' counters. Drivers and the interrupt core report to it
//! what they resend or defer, because no message accounts for the resulting handler run.
//!
//! # Verdicts
//! 1. A run is *late* if its CPU looked for interrupts before the vector was allocated: the CPU may
//!    have been descheduled between acknowledging and dispatching the interrupt, and the vector may
//!    have been freed and allocated again in the meantime. A late run is not a fault.
//! 2. A run is on a *wrong CPU* if the CPU was closed both when it looked for interrupts and when
//!    the oldest message was sent that was unhandled then. If each CPU has a pending bit of its own
//!    that does not move with the vector (direct LPIs), a message that arrived at the CPU since its
//!    last run also excuses the run.
//! 3. A run is *spurious* if it finds no new message, and none has arrived since the CPU of the last
//!    run looked for interrupts, or any other CPU that was dispatching the vector then. A message in
//!    flight, a dispatch by another CPU, and an interrupt that the core deferred, excuse it. CPUs
//!    acknowledge the line of a controller inside a host bridge and not its vectors, so that this
//!    rule does not apply to them.
//! 4. A handler must not run more often than its vector sent messages. This limit ignores late runs,
//!    and interrupts that the driver resent without knowing whether they were pending.

mod route;
mod route_table;

pub(crate) use route::{Pending, Route, SendOutcome};
pub(crate) use route_table::RouteTable;

use doorbell_hardware::lock::{ParkedThread, lock};
use doorbell_hardware::ram::Ram;
use msi_types::Cpu;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// An unknown time, later than any other.
const UNKNOWN: u64 = u64::MAX;
/// Number of messages whose send times are kept. A message's time is no longer needed once half as
/// many later messages have been sent.
const WINDOW: u64 = 1024;
/// Number of messages that a device may send before its handler has seen the first of them. A
/// device that has reached this limit must wait, as if its queue were full.
const AHEAD: u64 = WINDOW / 2;

/// Logical time, counted in events.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

impl Clock {
    /// Advances the time and returns it. No two events have the same time.
    pub(crate) fn tick(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Returns the time of the last event.
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The messages and handler runs of one vector, across all its allocations.
#[derive(Debug)]
pub(crate) struct VectorRecord {
    clock: Arc<Clock>,
    ram: Arc<Ram>,
    /// Address of the sequence number in RAM.
    mailbox: u64,
    /// Number of messages sent by the device.
    sent: AtomicU64,
    /// The highest sequence number that a handler has seen.
    seen: AtomicU64,
    wrong_cpu: AtomicU64,
    spurious: AtomicU64,
    late: AtomicU64,
    /// The times at which each message was sent and was first seen by a handler.
    sent_at: MessageTimes,
    seen_at: MessageTimes,
    /// Number of handler runs, indexed by CPU.
    runs: Box<[AtomicU64]>,
    route: Mutex<Arc<Route>>,
    /// Number of runs excused in earlier routes because the driver could not know whether the
    /// interrupt was pending.
    unknowable: AtomicU64,
    operations: Mutex<Operations>,
    /// Thread that waits for the handler.
    waiting: ParkedThread,
}

/// The operations on a vector.
#[derive(Debug, Default)]
struct Operations {
    /// Number of operations in progress. While it is nonzero, the endpoint may hold messages back.
    open: u32,
    /// Number of operations that have ended.
    ended: u64,
}

/// One time for each of the last [`WINDOW`] messages.
#[derive(Debug)]
pub(crate) struct MessageTimes(Box<[AtomicU64]>);

impl MessageTimes {
    pub(crate) fn new() -> Self {
        Self((0..WINDOW).map(|_| AtomicU64::new(0)).collect())
    }

    pub(crate) fn set(&self, message: u64, time: u64) {
        if let Some(place) = self.place(message) {
            place.store(time, Ordering::SeqCst);
        }
    }

    pub(crate) fn get(&self, message: u64) -> u64 {
        self.place(message).map_or(0, |place| place.load(Ordering::SeqCst))
    }

    fn place(&self, message: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(message % WINDOW).ok()?)
    }
}

/// A handler run.
#[derive(Clone, Copy)]
struct Run {
    cpu: Cpu,
    /// The time at which the CPU started to look for interrupts.
    looked_at: u64,
    /// The last message that this handler run could see, and the last message that an earlier run
    /// saw.
    number: u64,
    seen: u64,
}

/// The verdict on a handler run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum RunVerdict {
    Right,
    WrongCpu,
    Spurious,
    Late,
}

/// Counts for one vector.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct VectorCounts {
    pub(crate) sent: u64,
    pub(crate) runs: u64,
    pub(crate) wrong_cpu: u64,
    /// Handler runs that were not due, and handler runs beyond the number of messages plus
    /// [`unknowable`](Self::unknowable).
    pub(crate) spurious: u64,
    /// Interrupts that the driver resent without knowing whether they were pending.
    pub(crate) unknowable: u64,
    /// Runs for interrupts that were in flight when the previous owner freed the vector.
    pub(crate) late: u64,
    pub(crate) per_cpu: Vec<u64>,
}

impl VectorRecord {
    /// Creates the record for a vector that has no target yet, on a machine with `cpus` CPUs.
    /// `mailbox` is the address of 8 bytes of RAM.
    pub(crate) fn new(clock: Arc<Clock>, ram: Arc<Ram>, mailbox: u64, cpus: usize) -> Self {
        let nowhere =
            Arc::new(Route::new(Arc::clone(&clock), cpus, Pending::Travels, Arc::default()));
        Self {
            clock,
            ram,
            mailbox,
            sent: AtomicU64::new(0),
            seen: AtomicU64::new(0),
            wrong_cpu: AtomicU64::new(0),
            spurious: AtomicU64::new(0),
            late: AtomicU64::new(0),
            sent_at: MessageTimes::new(),
            seen_at: MessageTimes::new(),
            runs: (0..cpus).map(|_| AtomicU64::new(0)).collect(),
            route: Mutex::new(nowhere),
            unknowable: AtomicU64::new(0),
            operations: Mutex::default(),
            waiting: ParkedThread::default(),
        }
    }

    /// Makes the record use the route of a newly allocated vector. Must be called during an
    /// operation, while the device is not sending. Earlier messages were recorded in another route,
    /// but may become pending at the new vector until the operation ends.
    pub(crate) fn follow(&self, route: Arc<Route>) {
        let before = std::mem::replace(&mut *lock(&self.route), route);
        self.unknowable.fetch_add(before.unknowable(), Ordering::Relaxed);
    }

    /// Returns `true` unless too many messages are already waiting for the handler.
    pub(crate) fn may_send(&self) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        sent.saturating_sub(self.seen.load(Ordering::Acquire)) < AHEAD
    }

    /// Sends the device's next message by calling `fire`, which returns whether the message was
    /// sent. Returns `false` if the device could not send, or if too many messages are waiting for
    /// the handler. Must be called by one thread at a time.
    pub(crate) fn send(&self, fire: impl FnOnce() -> SendOutcome) -> bool {
        if !self.may_send() {
            return false;
        }
        let sent = self.sent.load(Ordering::Relaxed);
        let route = self.route();
        self.sent_at.set(sent + 1, self.clock.tick());
        self.ram.device_store64(self.mailbox, sent + 1);
        route.message_begins();
        let left = fire();
        {
            let operations = lock(&self.operations);
            // If no operation is in progress, the endpoint has sent what it held back.
            route.message_ends(left == SendOutcome::Held && operations.open > 0);
        }
        if left == SendOutcome::NotSent {
            // The message was not sent, so the next message reuses the sequence number.
            return false;
        }
        self.sent.store(sent + 1, Ordering::Release);
        true
    }

    /// Records a handler run on `cpu`, which started to look for interrupts at `looked_at`. Runs of
    /// one handler never overlap. Returns the numbers of the messages that no earlier run saw.
    pub(crate) fn handle(&self, cpu: Cpu, looked_at: u64) -> Range<u64> {
        let number = self.ram.device_load64(self.mailbox).unwrap_or(0);
        let seen = self.seen.load(Ordering::Relaxed);
        if let Some(runs) = self.runs.get(cpu.index()) {
            runs.fetch_add(1, Ordering::Relaxed);
        }
        let run = Run { cpu, looked_at, number, seen };
        let sent_at = self.oldest_unhandled(run).map_or(0, |oldest| self.sent_at.get(oldest));
        let verdict = self.route().judge(run, sent_at);
        match verdict {
            RunVerdict::Right => {}
            RunVerdict::WrongCpu => _ = self.wrong_cpu.fetch_add(1, Ordering::Relaxed),
            RunVerdict::Spurious => _ = self.spurious.fetch_add(1, Ordering::Relaxed),
            RunVerdict::Late => _ = self.late.fetch_add(1, Ordering::Relaxed),
        }
        if number > seen {
            // The interrupts of messages that a late run sees are still to come.
            let now = if verdict == RunVerdict::Late { UNKNOWN } else { self.clock.tick() };
            for handled in seen + 1..=number {
                self.seen_at.set(handled, now);
            }
            self.seen.store(number, Ordering::Release);
            self.waiting.unpark();
        }
        seen + 1..number.max(seen) + 1
    }

    /// Begins an operation during which the endpoint may hold messages back.
    pub(crate) fn begin_operation(&self) {
        lock(&self.operations).open += 1;
    }

    /// Ends an operation. Once no other operation is in progress, the endpoint has sent all
    /// messages that it held back.
    pub(crate) fn end_operation(&self) {
        let mut operations = lock(&self.operations);
        operations.open = operations.open.saturating_sub(1);
        operations.ended += 1;
        if operations.open == 0 {
            self.route().arrived();
        }
    }

    /// Returns the number of operations that have ended, or `None` if an operation is in progress.
    pub(crate) fn operations_ended(&self) -> Option<u64> {
        let operations = lock(&self.operations);
        (operations.open == 0).then_some(operations.ended)
    }

    /// Excuses messages that no handler saw because the device was removed.
    pub(crate) fn abandon(&self) {
        self.seen.fetch_max(self.sent.load(Ordering::Acquire), Ordering::AcqRel);
        self.waiting.unpark();
    }

    /// Waits until a handler sees another message or `limit` elapses. Returns immediately if
    /// `is_over` returns `true`. Must be called by one thread at a time.
    pub(crate) fn wait_unless(&self, is_over: impl FnOnce(&Self) -> bool, limit: Duration) {
        self.waiting.park_unless(|| is_over(self), || thread::park_timeout(limit));
    }

    /// Returns `true` if a handler saw the last message.
    pub(crate) fn is_settled(&self) -> bool {
        self.seen.load(Ordering::Acquire) >= self.sent.load(Ordering::Acquire)
    }

    /// Returns the number of messages sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    pub(crate) fn counts(&self) -> VectorCounts {
        let per_cpu: Vec<_> = self.runs.iter().map(|runs| runs.load(Ordering::Acquire)).collect();
        let (sent, runs) = (self.sent(), per_cpu.iter().sum());
        let unknowable = self.unknowable.load(Ordering::Acquire) + self.route().unknowable();
        let late = self.late.load(Ordering::Acquire);
        let beyond = u64::saturating_sub(runs, sent + unknowable + late);
        VectorCounts {
            sent,
            runs,
            wrong_cpu: self.wrong_cpu.load(Ordering::Acquire),
            spurious: self.spurious.load(Ordering::Acquire).max(beyond),
            unknowable,
            late,
            per_cpu,
        }
    }

    fn route(&self) -> Arc<Route> {
        Arc::clone(&lock(&self.route))
    }

    /// Returns the oldest message that was unhandled when the CPU started to look for interrupts.
    /// If all messages had been handled by then, returns the last one, which arrived only after a
    /// handler run for an earlier message had read its sequence number. Returns `None` if the
    /// message is so old that its time has been discarded.
    fn oldest_unhandled(&self, run: Run) -> Option<u64> {
        let mut oldest = run.number.min(run.seen + 1);
        while oldest > 1 && self.seen_at.get(oldest - 1) > run.looked_at {
            oldest -= 1;
            if run.number - oldest >= AHEAD {
                return None;
            }
        }
        Some(oldest)
    }
}

#[cfg(test)]
mod tests;
