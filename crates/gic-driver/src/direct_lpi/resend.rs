//! LPIs that the driver itself makes pending. Each is reported to a [`ResendObserver`], which
//! compares handler runs with messages: a seam for tests, hidden from the documentation.

use msi_types::{Cpu, HwIrq};

/// An LPI that the driver makes pending at a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resend {
    /// The LPI.
    pub hwirq: HwIrq,
    /// The CPU at which it becomes pending.
    pub cpu: Cpu,
    /// The reason, which tells if its handler may run more often.
    pub reason: ResendReason,
}

/// Reasons to make an LPI pending, the more certain ones first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResendReason {
    /// [`MsiParent::set_pending`](msi_types::MsiParent::set_pending) asked for it.
    Requested,
    /// It was pending at a CPU that left, and is not any more: its handler runs as often as before.
    Carried,
    /// It cannot be known whether it was pending at a CPU that left or lost its power. The same
    /// holds for the CPUs from which it was moved, when these became many. Its handler may run once
    /// more than its device sent.
    Unknowable,
}

/// Observes each LPI that the driver makes pending; the driver makes none pending without a call.
///
/// Both are called in any context, with the lock of the LPI's record held and interrupts masked.
/// They must not call the driver.
pub trait ResendObserver: Send + Sync {
    /// `GICR_SETLPIR` is about to be written: handlers may run for it from now on.
    fn resending(&self, resend: Resend);

    /// It was written.
    fn resent(&self, resend: Resend);
}
