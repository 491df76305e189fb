//! The handler runs that the acknowledgments of one vector make due.

use super::pending::UNKNOWN;
use doorbell_hardware::lock::lock;
use irq_domain::{Deferral, Dispatched};
use std::sync::Mutex;

/// Counts of acknowledgments that were caused by a message, and have not led to a run or a resend
/// yet.
///
/// The counts outlive the vector's allocation: an interrupt that was acknowledged for the former
/// owner may be dispatched, deferred and resent after the vector has been allocated again.
#[derive(Debug, Default)]
pub(crate) struct DueRuns(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Number of acknowledgments that make a run due.
    now: u64,
    /// Number of acknowledged interrupts whose handler is deferred until it is enabled.
    put_off: u64,
    /// Number of acknowledgments that are still being dispatched.
    in_dispatch: u64,
    /// The time at which the first of their interrupts became pending, or [`UNKNOWN`].
    pending_since: u64,
}

impl DueRuns {
    /// Records an acknowledgment. `due` is the time at which the interrupt became pending, or
    /// [`UNKNOWN`]; `None` if no message caused it.
    pub(super) fn acknowledge(&self, due: Option<u64>) {
        let counts = &mut *lock(&self.0);
        if counts.in_dispatch == 0 {
            // If an interrupt arrives while its handler runs, the interrupt core defers it, and
            // resends it before that handler run ends. One resend may cover several deferred
            // interrupts.
            counts.now = 0;
            counts.pending_since = UNKNOWN;
        }
        counts.in_dispatch += 1;
        counts.now += u64::from(due.is_some());
        counts.pending_since = counts.pending_since.min(due.unwrap_or(UNKNOWN));
    }

    /// Records that the dispatch of an acknowledged interrupt has returned.
    pub(crate) fn dispatched(&self, outcome: Dispatched) {
        let counts = &mut *lock(&self.0);
        counts.in_dispatch = counts.in_dispatch.saturating_sub(1);
        if outcome == Dispatched::Deferred(Deferral::Disabled) {
            counts.put_off += u64::from(counts.run());
        }
    }

    /// Returns `true` if the interrupt was acknowledged, and its dispatch has not returned.
    pub(super) fn is_in_dispatch(&self) -> bool {
        lock(&self.0).in_dispatch != 0
    }

    /// Records a handler run. Returns the time at which the first of the interrupts that are being
    /// dispatched became pending, or [`UNKNOWN`]; `None` if no run was due.
    pub(super) fn run(&self) -> Option<u64> {
        let counts = &mut *lock(&self.0);
        counts.run().then_some(counts.pending_since)
    }

    /// Records a resend by the interrupt core. Returns `false` if no interrupt was deferred.
    pub(super) fn resend(&self) -> bool {
        let counts = &mut *lock(&self.0);
        // One resend covers all deferred interrupts.
        std::mem::take(&mut counts.put_off) != 0 || counts.run()
    }
}

impl Counts {
    fn run(&mut self) -> bool {
        let is_due = self.now != 0;
        self.now = self.now.saturating_sub(1);
        is_due
    }
}
