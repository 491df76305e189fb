//! A vector's targets over time, and which of its runs are due.

use super::Clock;
use super::pending::{Cause, Pending, PendingBits};
use doorbell_hardware::lock::lock;
use irq_domain::{Deferral, Dispatched};
use msi_types::Cpu;
use std::sync::{Arc, Mutex};

/// Closing time of a CPU that is still a possible target.
const OPEN: u64 = u64::MAX;

/// The result of a device's attempt to send a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SendOutcome {
    /// The message arrived at its destination.
    Sent,
    /// The endpoint holds the message back until an operation ends.
    Held,
    /// The endpoint must not send.
    NotSent,
}

/// One allocation of a vector, up to the time when it is freed.
#[derive(Debug)]
pub(crate) struct Route {
    clock: Arc<Clock>,
    pending: Pending,
    /// The time of the allocation.
    made_at: u64,
    state: Mutex<RouteState>,
}

#[derive(Debug)]
struct RouteState {
    /// The time at which each CPU stopped being a possible target; 0 if it never was one.
    closed_at: Vec<u64>,
    /// The possible targets: one normally, two during a move.
    open: Vec<Cpu>,
    bits: PendingBits,
    due: DueRuns,
    /// Number of excused extra runs, one per resend.
    unknowable: u64,
}

/// Acknowledgements for a message that have caused neither a run nor a resend yet.
#[derive(Debug, Default)]
struct DueRuns {
    now: u64,
    /// Those among them that are waiting for the handler to be enabled.
    put_off: u64,
    /// Number of acknowledgements still being dispatched.
    in_dispatch: u64,
}

impl Route {
    /// Creates a route without a target, for a machine with `cpus` CPUs.
    pub(crate) fn new(clock: Arc<Clock>, cpus: usize, pending: Pending) -> Self {
        let state = RouteState {
            closed_at: vec![0; cpus],
            open: Vec::new(),
            bits: PendingBits::new(pending, cpus),
            due: DueRuns::default(),
            unknowable: 0,
        };
        Self { made_at: clock.tick(), clock, pending, state: Mutex::new(state) }
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

    /// Records that a message is about to be sent. At most one may be in flight.
    pub(super) fn message_begins(&self) {
        let state = &mut *lock(&self.state);
        state.bits.begin(Cause::Message, &state.open);
    }

    /// Records the fate of that message. A `Held` message must be [released](Self::released) later.
    pub(super) fn message_ended(&self, left: SendOutcome) {
        let state = &mut *lock(&self.state);
        match left {
            SendOutcome::NotSent => state.bits.cancel_message(),
            SendOutcome::Held => state.bits.hold_message(),
            // Messages that were held back were sent before this one.
            SendOutcome::Sent => {
                let causes = [Cause::Untold, Cause::Held, Cause::Message];
                state.bits.arrive(&causes, self.clock.tick());
            }
        }
    }

    /// Records that the endpoint may hold back unreported messages until they [are
    /// released](Self::released).
    pub(super) fn hold(&self) {
        let state = &mut *lock(&self.state);
        state.bits.begin(Cause::Untold, &state.open);
    }

    /// Records that the endpoint no longer holds back messages.
    pub(super) fn released(&self) {
        lock(&self.state).bits.arrive(&[Cause::Untold, Cause::Held], self.clock.tick());
    }

    /// Records that the driver is about to make the interrupt pending at `cpu`. This excuses a run
    /// only if `cpu` is a possible target.
    pub(super) fn resending(&self, cpu: Cpu) {
        let state = &mut *lock(&self.state);
        if state.open.contains(&cpu) {
            state.bits.begin(Cause::Resend, &[cpu]);
        }
    }

    /// Records that the interrupt core is about to make the interrupt pending at `cpu`. This
    /// excuses a run only if `cpu` is a possible target and an acknowledged interrupt was not
    /// handled.
    pub(super) fn redelivering(&self, cpu: Cpu) {
        let state = &mut *lock(&self.state);
        if state.open.contains(&cpu) && state.due.resend() {
            state.bits.begin(Cause::Resend, &[cpu]);
        }
    }

    /// Records that the resend to `cpu` has been carried out.
    pub(super) fn resent(&self, cpu: Cpu) {
        let now = self.clock.tick();
        lock(&self.state).bits.arrive_resend(cpu, now);
    }

    /// Excuses one extra run, because the driver doesn't know whether the interrupt was pending.
    pub(super) fn count_unknowable(&self) {
        lock(&self.state).unknowable += 1;
    }

    /// Records that `cpu`, which started to look at `looked_at`, acknowledged the interrupt and is
    /// about to dispatch it.
    pub(crate) fn acknowledged(&self, cpu: Cpu, looked_at: u64) {
        let state = &mut *lock(&self.state);
        let is_due = state.bits.acknowledge(cpu, looked_at, self.clock.tick());
        state.due.acknowledge(is_due);
    }

    /// Records that an acknowledgement's dispatch returned.
    pub(crate) fn dispatched(&self, outcome: Dispatched) {
        lock(&self.state).due.dispatched(outcome);
    }

    /// Records a handler run. Returns `false` if none was due.
    pub(super) fn run(&self) -> bool {
        lock(&self.state).due.run()
    }

    /// Records that nothing is pending at `cpu` any longer, except for interrupts sent there from
    /// now on.
    pub(super) fn empty(&self, cpu: Cpu) {
        let now = self.clock.now();
        let state = &mut *lock(&self.state);
        if !state.open.contains(&cpu) {
            state.bits.empty(cpu, now);
        }
    }

    /// Returns the current target, or `None` before the first.
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

impl DueRuns {
    fn acknowledge(&mut self, is_due: bool) {
        if self.in_dispatch == 0 {
            // Deferred interrupts are resent before the run that they collided with is over, and
            // several may be resent only once.
            self.now = 0;
        }
        self.in_dispatch += 1;
        self.now += u64::from(is_due);
    }

    fn dispatched(&mut self, outcome: Dispatched) {
        self.in_dispatch = self.in_dispatch.saturating_sub(1);
        if outcome == Dispatched::Deferred(Deferral::Disabled) {
            self.put_off += u64::from(self.run());
        }
    }

    fn run(&mut self) -> bool {
        let is_due = self.now != 0;
        self.now = self.now.saturating_sub(1);
        is_due
    }

    fn resend(&mut self) -> bool {
        // One resend mark covers all deferred interrupts.
        self.run() || std::mem::take(&mut self.put_off) != 0
    }
}
