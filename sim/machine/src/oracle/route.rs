//! The CPUs that a vector has targeted over time, and which of its handler runs are due.

use super::Clock;
use super::due_runs::DueRuns;
use super::pending::{Cause, Pending, PendingBits, UNKNOWN};
use doorbell_hardware::lock::lock;
use msi_types::Cpu;
use std::sync::{Arc, Mutex};

/// Closing time of a CPU that is still a possible target.
const OPEN: u64 = u64::MAX;

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

/// One allocation of a vector, which lasts until the vector is freed.
#[derive(Debug)]
pub(crate) struct Route {
    clock: Arc<Clock>,
    pending: Pending,
    /// The time of the allocation.
    made_at: u64,
    /// `true` if a chained controller signals the vector by its line, so that CPUs acknowledge the
    /// line instead of the vector.
    chained: bool,
    /// The runs that the vector's acknowledgments make due, across its allocations.
    due: Arc<DueRuns>,
    state: Mutex<RouteState>,
}

#[derive(Debug)]
struct RouteState {
    /// The time at which each CPU stopped being a possible target; 0 if the CPU never was one.
    closed_at: Vec<u64>,
    /// The possible targets: normally one CPU, or two during a move.
    open: Vec<Cpu>,
    bits: PendingBits,
    /// The time at which a driver last cleared the vector's status bit.
    cleared_at: u64,
    /// Number of extra runs excused because the driver could not know whether the interrupt that it
    /// resent was pending.
    unknowable: u64,
}

impl Route {
    /// Creates a route without a target for a machine with `cpus` CPUs.
    pub(crate) fn new(clock: Arc<Clock>, cpus: usize, pending: Pending, due: Arc<DueRuns>) -> Self {
        let state = RouteState {
            closed_at: vec![0; cpus],
            open: Vec::new(),
            bits: PendingBits::new(pending, cpus),
            cleared_at: 0,
            unknowable: 0,
        };
        let state = Mutex::new(state);
        Self { made_at: clock.tick(), clock, pending, chained: false, due, state }
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

    /// Records that the device is about to send a message. At most one message may be in flight.
    pub(super) fn message_begins(&self) {
        let state = &mut *lock(&self.state);
        state.bits.begin(Cause::Message, &state.open, self.clock.now());
    }

    /// Records whether the device sent the message. If the outcome is `Held`,
    /// [`released`](Self::released) must be called later.
    pub(super) fn message_ended(&self, left: SendOutcome) {
        let state = &mut *lock(&self.state);
        match left {
            SendOutcome::NotSent => state.bits.cancel_message(),
            SendOutcome::Held => state.bits.hold_message(),
            // The endpoint sent all messages that it held back before this one.
            SendOutcome::Sent => {
                let causes = [Cause::Untold, Cause::Held, Cause::Message];
                state.bits.arrive(&causes, self.clock.tick());
            }
        }
    }

    /// Records that the endpoint may hold back any number of messages until
    /// [`released`](Self::released) is called.
    pub(super) fn hold(&self) {
        let state = &mut *lock(&self.state);
        state.bits.begin(Cause::Untold, &state.open, self.clock.now());
    }

    /// Records that the endpoint no longer holds back messages.
    pub(super) fn released(&self) {
        lock(&self.state).bits.arrive(&[Cause::Untold, Cause::Held], self.clock.tick());
    }

    /// Records that the driver is about to make the interrupt pending at `cpu`. The resend excuses
    /// a run only if `cpu` is a possible target.
    pub(super) fn resending(&self, cpu: Cpu) {
        let state = &mut *lock(&self.state);
        if state.open.contains(&cpu) {
            state.bits.begin(Cause::Resend, &[cpu], self.clock.now());
        }
    }

    /// Records that the interrupt core is about to make the interrupt pending at `cpu`. The resend
    /// excuses a run only if `cpu` is a possible target and an acknowledged interrupt was not
    /// handled.
    pub(super) fn redelivering(&self, cpu: Cpu) {
        let state = &mut *lock(&self.state);
        if state.open.contains(&cpu) && self.due.resend() {
            state.bits.begin(Cause::Resend, &[cpu], self.clock.now());
        }
    }

    /// Records that the resend to `cpu` has been carried out.
    pub(super) fn resent(&self, cpu: Cpu) {
        let state = &mut *lock(&self.state);
        // Take the time under the lock, because arrivals must be recorded in their order.
        state.bits.arrive_resend(cpu, self.clock.tick());
    }

    /// Excuses one extra run, because the driver doesn't know whether the interrupt was pending.
    pub(super) fn count_unknowable(&self) {
        lock(&self.state).unknowable += 1;
    }

    /// Records that `cpu`, which started to look for interrupts at `looked_at`, acknowledged the
    /// interrupt and is about to dispatch it. If the vector was allocated since then, the message
    /// may have been its former owner's, so the acknowledgment accounts for none of this route's.
    pub(crate) fn acknowledged(&self, cpu: Cpu, looked_at: u64) {
        let state = &mut *lock(&self.state);
        let due = if looked_at < self.made_at {
            Some(UNKNOWN)
        } else {
            state.bits.acknowledge(cpu, looked_at, self.clock.tick())
        };
        self.due.acknowledge(due);
    }

    /// Records that a driver on `cpu` cleared the status bit of a vector that has a line. The CPU
    /// acknowledged the line after `looked_at`. It may still find the vector after the line moved
    /// to another CPU.
    pub(super) fn cleared(&self, cpu: Cpu, looked_at: u64) {
        let now = self.clock.now();
        let state = &mut *lock(&self.state);
        state.cleared_at = now;
        if let Some(closed_at) = state.closed_at.get_mut(cpu.index())
            && (looked_at..OPEN).contains(closed_at)
        {
            *closed_at = self.clock.tick();
        }
        let due = state.bits.acknowledge(cpu, now, self.clock.tick());
        self.due.acknowledge(due);
    }

    /// Returns the time at which a driver last cleared the vector's status bit.
    pub(super) fn cleared_at(&self) -> u64 {
        lock(&self.state).cleared_at
    }

    /// Returns the runs that acknowledgments make due.
    pub(crate) fn due(&self) -> &DueRuns {
        &self.due
    }

    /// Records that the vector is no longer pending at `cpu`, except for interrupts sent there from
    /// now on.
    pub(super) fn empty(&self, cpu: Cpu) {
        let now = self.clock.now();
        let state = &mut *lock(&self.state);
        if !state.open.contains(&cpu) {
            state.bits.empty(cpu, now);
        }
    }

    /// Returns the current target, or `None` before the first target is set.
    pub(super) fn target(&self) -> Option<Cpu> {
        lock(&self.state).open.first().copied()
    }

    /// Returns the time of the allocation.
    pub(super) fn made_at(&self) -> u64 {
        self.made_at
    }

    pub(super) fn pending(&self) -> Pending {
        self.pending
    }

    /// Returns `true` if `cpu` was a possible target at any time since `time`.
    pub(super) fn was_target_since(&self, cpu: Cpu, time: u64) -> bool {
        lock(&self.state).closed_at.get(cpu.index()).is_some_and(|closed_at| *closed_at > time)
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
            self.bits.open(cpu);
        }
    }
}
