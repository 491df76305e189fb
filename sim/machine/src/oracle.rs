//! The judge of a run. It compares each vector's messages with its handler runs, and the CPUs of
//! these runs with the vector's targets.
//!
//! # Records
//! Each message carries a sequence number in memory. The device stores the number, records the
//! time, and sends. Time is a counter ([`Clock`]) that advances with every event.
//!
//! A [`Route`] records when each CPU was a possible target of a vector. A CPU is *open* while it is
//! the target, and while a move to it may be under way. It is *closed* once the move away from it
//! has finished.
//!
//! The judge doesn't look at the controllers' counters. Drivers and the interrupt core tell it
//! about every interrupt they resend, because no message explains the resulting run.
//!
//! # Verdicts
//! 1. A run is *late* if its CPU looked for interrupts before the vector was allocated: the CPU may
//!    have been descheduled between acknowledging and dispatching, and the vector may have changed
//!    owners in that window. A late run is not a fault.
//! 2. A run is *due* if the vector was acknowledged for a message, and that acknowledgement caused
//!    no other run and no resend by the core. Otherwise the run is on a *wrong CPU* if the last
//!    message was sent after the CPU was closed and the CPU was not a target when it looked, and
//!    *spurious* in all other cases.
//! 3. A due run is on a wrong CPU if the CPU was not a target at any time since the message was
//!    sent; spurious instead, if the CPU was a target when it looked.
//!
//! In addition, a handler must not run more often than its vector sent messages. Late runs don't
//! count here, nor do interrupts that the driver resent without knowing whether they were pending.
//!
//! # Acknowledgements for a message
//! An acknowledgement is for a message if one was under way or arrived since the previous
//! acknowledgement. Which acknowledgement is the previous one depends on the controller:
//!
//! - **One pending bit that travels with the vector** (an ITS, SPIs): the previous one on any CPU.
//!   Each message makes one acknowledgement due; a message that finds the interrupt pending makes
//!   none. Rule 3 judges the oldest message that was unhandled when the CPU looked, rather than
//!   when the handler ran, because another CPU may handle later messages in between.
//! - **One pending bit per CPU, which does not move** (direct LPIs): the previous one on the same
//!   CPU. A message can only be pending at CPUs that were open while it was under way, which lasts
//!   from before it was sent until the bus accepted it. If the endpoint held the message back for
//!   an operation, it lasts until the end of the operation. An interrupt that the driver sends
//!   again can be pending at the CPU that the driver reports, if that CPU is a target. An
//!   acknowledgement consumes every message that arrived at its CPU before the CPU looked. This
//!   rule is stricter than rule 3, which therefore does not apply.
//!
//! A resend by the interrupt core is due only after an acknowledgement for a message whose dispatch
//! was deferred.

mod pending;
mod route;
mod route_table;

pub(crate) use pending::Pending;
pub(crate) use route::{Route, SendOutcome};
pub(crate) use route_table::RouteTable;

use doorbell_hardware::lock::lock;
use doorbell_hardware::ram::Ram;
use msi_types::Cpu;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Number of messages whose times are kept. Once half as many have followed a message, its fate is
/// settled or its time is no longer needed.
const WINDOW: u64 = 1024;
/// Number of messages by which a device may be ahead of its handler. Beyond it, the device's queue
/// is full.
const AHEAD: u64 = WINDOW / 2;

/// Logical time, in events.
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
    /// The highest sequence number seen by a handler.
    seen: AtomicU64,
    wrong_cpu: AtomicU64,
    spurious: AtomicU64,
    late: AtomicU64,
    /// The times at which each message was sent and first seen.
    sent_at: MessageTimes,
    seen_at: MessageTimes,
    /// Number of runs, indexed by CPU.
    runs: Box<[AtomicU64]>,
    route: Mutex<Arc<Route>>,
    /// Excused runs carried over from earlier routes.
    unknowable: AtomicU64,
    /// Number of operations in progress during which the endpoint may hold messages back.
    operations: Mutex<u32>,
}

/// One time for each of the last [`WINDOW`] messages.
#[derive(Debug)]
struct MessageTimes(Box<[AtomicU64]>);

impl MessageTimes {
    fn new() -> Self {
        Self((0..WINDOW).map(|_| AtomicU64::new(0)).collect())
    }

    fn set(&self, message: u64, time: u64) {
        if let Some(place) = self.place(message) {
            place.store(time, Ordering::SeqCst);
        }
    }

    fn get(&self, message: u64) -> u64 {
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
    /// The last message visible to this handler run, and the last one that an earlier run saw.
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
    /// Runs that were not due, and runs in excess of the messages and
    /// [`unknowable`](Self::unknowable).
    pub(crate) spurious: u64,
    /// Resends for which the driver does not know whether the interrupt was pending.
    pub(crate) unknowable: u64,
    /// Runs for interrupts that were in flight when the previous owner freed the vector.
    pub(crate) late: u64,
    pub(crate) per_cpu: Vec<u64>,
}

impl VectorRecord {
    /// Creates the record for a vector that has no target yet, on a machine with `cpus` CPUs.
    /// `mailbox` is the address of 8 bytes of RAM.
    pub(crate) fn new(clock: Arc<Clock>, ram: Arc<Ram>, mailbox: u64, cpus: usize) -> Self {
        let nowhere = Arc::new(Route::new(Arc::clone(&clock), cpus, Pending::Travels));
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
            operations: Mutex::new(0),
        }
    }

    /// Follows the route of a newly allocated vector. Must be called during an operation, while no
    /// message is in flight. Earlier messages were recorded in another route, and may be pending at
    /// the new route's vector until the operation ends.
    pub(crate) fn follow(&self, route: Arc<Route>) {
        let before = std::mem::replace(&mut *lock(&self.route), route);
        self.unknowable.fetch_add(before.unknowable(), Ordering::Relaxed);
    }

    /// Lets the device send its next message by calling `fire`, which returns the message's fate.
    /// Returns `false` if the device could not send, or if too many messages are waiting for the
    /// handler. Must be called by one thread at a time.
    pub(crate) fn send(&self, fire: impl FnOnce() -> SendOutcome) -> bool {
        let sent = self.sent.load(Ordering::Relaxed);
        if sent.saturating_sub(self.seen.load(Ordering::Acquire)) >= AHEAD {
            return false;
        }
        let route = self.route();
        self.sent_at.set(sent + 1, self.clock.tick());
        self.ram.device_store64(self.mailbox, sent + 1);
        route.message_begins();
        let left = fire();
        self.message_ended(&route, left);
        if left == SendOutcome::NotSent {
            // The next message will reuse the number.
            return false;
        }
        self.sent.store(sent + 1, Ordering::Release);
        true
    }

    fn message_ended(&self, route: &Route, left: SendOutcome) {
        let operations = lock(&self.operations);
        match left {
            // The operation that held the message back has ended, so the message must have arrived.
            SendOutcome::Held if *operations == 0 => route.message_ended(SendOutcome::Sent),
            SendOutcome::Held | SendOutcome::Sent | SendOutcome::NotSent => {
                route.message_ended(left);
            }
        }
    }

    /// Records a handler run on `cpu`, which looked for interrupts at `looked_at`. The route must
    /// already have recorded the acknowledgement. Runs of the same handler never overlap.
    pub(crate) fn handle(&self, cpu: Cpu, looked_at: u64) {
        let number = self.ram.device_load64(self.mailbox).unwrap_or(0);
        let seen = self.seen.load(Ordering::Relaxed);
        if let Some(runs) = self.runs.get(cpu.index()) {
            runs.fetch_add(1, Ordering::Relaxed);
        }
        match self.judge(Run { cpu, looked_at, number, seen }) {
            RunVerdict::Right => {}
            RunVerdict::WrongCpu => _ = self.wrong_cpu.fetch_add(1, Ordering::Relaxed),
            RunVerdict::Spurious => _ = self.spurious.fetch_add(1, Ordering::Relaxed),
            RunVerdict::Late => _ = self.late.fetch_add(1, Ordering::Relaxed),
        }
        if number > seen {
            let now = self.clock.tick();
            for handled in seen + 1..=number {
                self.seen_at.set(handled, now);
            }
            self.seen.store(number, Ordering::Release);
        }
    }

    /// Begins an operation during which the endpoint may hold messages back.
    pub(crate) fn begin_operation(&self) {
        *lock(&self.operations) += 1;
    }

    /// Ends an operation. Once no other operation is in progress, all held-back messages have been
    /// sent.
    pub(crate) fn end_operation(&self) {
        let mut operations = lock(&self.operations);
        *operations = operations.saturating_sub(1);
        if *operations == 0 {
            self.route().released();
        }
    }

    /// Excuses messages that no handler saw because the device was removed.
    pub(crate) fn abandon(&self) {
        self.seen.fetch_max(self.sent.load(Ordering::Acquire), Ordering::AcqRel);
    }

    /// Returns `true` if a handler saw the last message.
    pub(crate) fn is_settled(&self) -> bool {
        self.seen.load(Ordering::Acquire) >= self.sent.load(Ordering::Acquire)
    }

    /// Returns the number of messages that handlers have seen, or that were excused.
    pub(crate) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
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

    /// Judges a run according to the rules in the module documentation.
    fn judge(&self, run: Run) -> RunVerdict {
        let route = self.route();
        let was_target = |message| route.was_target_since(run.cpu, self.sent_at.get(message));
        if run.looked_at < route.made_at() {
            return RunVerdict::Late;
        }
        let looked_as_target = route.was_target_since(run.cpu, run.looked_at);
        match (route.run(), route.pending()) {
            (true, Pending::Stays) => RunVerdict::Right,
            (true, Pending::Travels) if self.oldest_unhandled(run).is_none_or(was_target) => {
                RunVerdict::Right
            }
            (false, _) if was_target(run.number) => RunVerdict::Spurious,
            (true, Pending::Travels) | (false, _) if looked_as_target => RunVerdict::Spurious,
            (true, Pending::Travels) | (false, _) => RunVerdict::WrongCpu,
        }
    }

    /// Returns the oldest message that was unhandled when the CPU looked. If all had been handled,
    /// returns the last one: it arrived after a handler run for an earlier message had already seen
    /// its number. Returns `None` if the message is too old for its time to be kept.
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
