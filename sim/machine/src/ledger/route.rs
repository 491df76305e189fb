//! The CPUs that a vector has targeted over time, and the arrivals that make its handler runs due.

use super::{Clock, Run, RunVerdict, UNKNOWN};
use doorbell_hardware::lock::lock;
use msi_types::Cpu;
use std::sync::{Arc, Mutex};

/// Closing time of a CPU that is still a possible target.
const OPEN: u64 = u64::MAX;

/// Behavior of a pending bit when its vector moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Pending {
    /// The vector has a single pending bit that moves with it.
    Travels,
    /// Each CPU has its own pending bit, which does not move with the vector.
    Stays,
}

/// The result of a device's attempt to send a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendOutcome {
    /// The message was sent and has arrived.
    Sent,
    /// The endpoint holds the message back until an operation ends.
    Held,
    /// The endpoint must not send the message.
    NotSent,
}

/// The dispatches of one vector, of all its allocations.
#[derive(Debug, Default)]
pub(crate) struct Dispatches {
    /// The CPUs that do not know yet which vector they have acknowledged.
    looks: Option<Arc<Self>>,
    state: Mutex<DispatchState>,
}

#[derive(Debug, Default)]
struct DispatchState {
    /// The CPUs that acknowledged an interrupt and whose dispatch has not returned, and the times
    /// at which they looked for interrupts.
    looked_at: Vec<(Cpu, u64)>,
    /// Set if the interrupt core has deferred an interrupt and will resend it.
    deferred: bool,
}

impl Dispatches {
    pub(super) fn new(looks: Arc<Self>) -> Self {
        Self { looks: Some(looks), ..Self::default() }
    }

    /// Records that a CPU, which started to look for interrupts at `looked_at`, acknowledged the
    /// vector and is about to dispatch it.
    pub(crate) fn begin(&self, cpu: Cpu, looked_at: u64) {
        lock(&self.state).looked_at.push((cpu, looked_at));
    }

    /// Records that the dispatch has returned.
    pub(crate) fn end(&self, cpu: Cpu, is_deferred: bool) {
        let state = &mut *lock(&self.state);
        state.looked_at.retain(|(other, _)| *other != cpu);
        state.deferred |= is_deferred;
    }

    /// Returns the time at which the first of the CPUs looked that are dispatching the vector, or
    /// that may be about to.
    fn first_look(&self) -> u64 {
        // A CPU begins a dispatch before its look ends.
        let first = self.looks.as_ref().map_or(UNKNOWN, |looks| looks.first_look());
        lock(&self.state).looked_at.iter().fold(first, |first, (_, time)| first.min(*time))
    }

    /// Returns `true` if a CPU other than `cpu` is dispatching the vector, or if an interrupt was
    /// deferred since the last call that found no such CPU.
    fn is_left_to_another_run(&self, cpu: Cpu) -> bool {
        let state = &mut *lock(&self.state);
        state.looked_at.iter().any(|(other, _)| *other != cpu)
            || std::mem::take(&mut state.deferred)
    }
}

/// One allocation of a vector, which lasts until the vector is freed.
#[derive(Debug)]
pub(crate) struct Route {
    clock: Arc<Clock>,
    pending: Pending,
    /// The time of the allocation.
    made_at: u64,
    /// `true` if a chained controller signals the vector by its line.
    chained: bool,
    dispatches: Arc<Dispatches>,
    state: Mutex<RouteState>,
}

#[derive(Debug)]
struct RouteState {
    /// The time at which each CPU stopped being a possible target; 0 if the CPU never was one.
    closed_at: Vec<u64>,
    /// The possible targets: normally one CPU, or two during a move.
    open: Vec<Cpu>,
    /// The time since which messages may be in flight.
    in_flight_since: Option<u64>,
    /// The time at which the device began to send a message, while it sends one.
    sending_since: Option<u64>,
    /// The pending bits, by CPU; only the first is used if the bit travels.
    bits: Vec<PendingBit>,
    /// Number of extra runs excused because the driver could not know whether the interrupt that it
    /// resent was pending.
    unknowable: u64,
}

/// The times of the last arrival, of the interrupt core's last resend, and at which the CPU of the
/// last run looked for interrupts.
#[derive(Clone, Copy, Debug, Default)]
struct PendingBit {
    arrived: u64,
    resent: u64,
    looked: u64,
}

impl Route {
    /// Creates a route without a target for a machine with `cpus` CPUs. The device may send
    /// messages before its record starts to use this route.
    pub(crate) fn new(
        clock: Arc<Clock>,
        cpus: usize,
        pending: Pending,
        dispatches: Arc<Dispatches>,
    ) -> Self {
        let made_at = clock.tick();
        let state = Mutex::new(RouteState {
            closed_at: vec![0; cpus],
            open: Vec::new(),
            in_flight_since: Some(made_at),
            sending_since: None,
            bits: vec![PendingBit::default(); cpus],
            unknowable: 0,
        });
        Self { made_at, clock, pending, chained: false, dispatches, state }
    }

    /// Creates the route of a vector that has the target of its line, for now any CPU.
    pub(crate) fn chained(clock: Arc<Clock>, cpus: usize, pending: Pending) -> Self {
        let route = Self { chained: true, ..Self::new(clock, cpus, pending, Arc::default()) };
        route.open_all();
        route
    }

    pub(crate) const fn is_chained(&self) -> bool {
        self.chained
    }

    /// Records that messages may be delivered to any CPU.
    pub(super) fn open_all(&self) {
        let state = &mut *lock(&self.state);
        (0..).map(Cpu::new).take(state.closed_at.len()).for_each(|cpu| state.open(cpu));
    }

    /// Records that messages may now also be delivered to `cpu`.
    pub(crate) fn open(&self, cpu: Cpu) {
        lock(&self.state).open(cpu);
    }

    /// Records that messages are now delivered only to `target`.
    pub(crate) fn settle(&self, target: Cpu) {
        let state = &mut *lock(&self.state);
        state.open(target);
        let now = self.clock.tick();
        for cpu in std::mem::replace(&mut state.open, vec![target]) {
            if let Some(closed_at) = state.closed_at.get_mut(cpu.index()).filter(|_| cpu != target)
            {
                *closed_at = now;
            }
        }
    }

    /// Records that the device is about to send a message.
    pub(super) fn message_begins(&self) {
        let now = self.clock.now();
        let state = &mut *lock(&self.state);
        state.sending_since = Some(now);
        state.in_flight_since.get_or_insert(now);
    }

    /// Records that the device has sent a message, which arrives later if the endpoint holds it
    /// back.
    pub(super) fn message_ends(&self, is_held: bool) {
        lock(&self.state).sending_since = None;
        if !is_held {
            self.arrived();
        }
    }

    /// Records that all messages have arrived that were in flight or that the endpoint held back,
    /// except for one that the device is sending. Each may be pending at every CPU that was a
    /// target while it was in flight.
    pub(super) fn arrived(&self) {
        let state = &mut *lock(&self.state);
        let since = std::mem::replace(&mut state.in_flight_since, state.sending_since);
        let Some(since) = since else { return };
        let now = self.clock.tick();
        for (bit, closed_at) in state.bits.iter_mut().zip(&state.closed_at) {
            if self.pending == Pending::Travels || *closed_at > since {
                bit.arrived = now;
            }
        }
    }

    /// Records that the driver makes the interrupt pending at `cpu`, which excuses a run only if
    /// `cpu` is a possible target; if the interrupt core asked for it, only a run that is due.
    pub(super) fn resent(&self, cpu: Cpu, by_core: bool) {
        let state = &mut *lock(&self.state);
        if state.open.contains(&cpu)
            && let Some(bit) = state.bits.get_mut(cpu.index())
        {
            let now = self.clock.tick();
            *(if by_core { &mut bit.resent } else { &mut bit.arrived }) = now;
        }
    }

    /// Excuses one extra run, because the driver doesn't know whether the interrupt was pending.
    pub(super) fn count_unknowable(&self) {
        lock(&self.state).unknowable += 1;
    }

    /// Records that the vector is no longer pending at `cpu`, except for interrupts sent there from
    /// now on.
    pub(super) fn empty(&self, cpu: Cpu) {
        let now = self.clock.now();
        let state = &mut *lock(&self.state);
        if !state.open.contains(&cpu)
            && let Some(bit) = state.bits.get_mut(cpu.index())
        {
            bit.looked = now;
        }
    }

    /// Judges a run according to the rules in the module documentation. `sent_at` is the time at
    /// which the oldest message was sent that was unhandled when the CPU looked for interrupts.
    pub(super) fn judge(&self, run: Run, sent_at: u64) -> RunVerdict {
        let state = &mut *lock(&self.state);
        let stays = self.pending == Pending::Stays;
        let bit = if stays { run.cpu.index() } else { 0 };
        let Some(bit) = state.bits.get_mut(bit) else { return RunVerdict::WrongCpu };
        if run.looked_at < self.made_at {
            return RunVerdict::Late;
        }
        let is_resent = bit.resent > bit.looked;
        let is_pending = bit.arrived > bit.looked;
        let is_due = is_pending
            || self.chained
            || run.number > run.seen
            || run.looked_at < bit.looked
            || state.in_flight_since.is_some();
        // Another CPU may have acknowledged an earlier arrival, and may be about to dispatch it.
        let looked_at = run.looked_at.min(self.dispatches.first_look());
        bit.looked = bit.looked.max(looked_at);
        let closed_at = state.closed_at.get(run.cpu.index()).copied().unwrap_or(0);
        if closed_at <= run.looked_at.min(sent_at) && !(stays && (is_pending || is_resent)) {
            RunVerdict::WrongCpu
        } else if is_due || self.dispatches.is_left_to_another_run(run.cpu) {
            RunVerdict::Right
        } else {
            RunVerdict::Spurious
        }
    }

    /// Returns the current target, or `None` before the first target is set.
    pub(super) fn target(&self) -> Option<Cpu> {
        lock(&self.state).open.first().copied()
    }

    pub(super) fn unknowable(&self) -> u64 {
        lock(&self.state).unknowable
    }
}

impl RouteState {
    fn open(&mut self, cpu: Cpu) {
        let Some(closed_at) = self.closed_at.get_mut(cpu.index()) else { return };
        if *closed_at != OPEN {
            *closed_at = OPEN;
            self.open.push(cpu);
        }
    }
}
