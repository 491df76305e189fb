//! LPIs that the driver itself makes pending. Each is reported to a [`ResendObserver`], with which
//! tests compare handler runs with messages. Hidden from the documentation.

use msi_types::{Cpu, HwIrq};

/// An LPI that the driver makes pending at a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resend {
    /// The LPI.
    pub hwirq: HwIrq,
    /// The CPU at which it becomes pending.
    pub cpu: Cpu,
    /// The reason, which determines whether its handler may run more often.
    pub reason: ResendReason,
}

/// The reason why the driver makes an LPI pending, in order of decreasing certainty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResendReason {
    /// [`MsiParent::set_pending`](msi_types::MsiParent::set_pending) requested it.
    Requested,
    /// It was pending at a CPU that went offline, and no longer is. Its handler does not run more
    /// often.
    Carried,
    /// It is unknown whether it was pending at a CPU that went offline or lost its power, or at one
    /// of its earlier targets that are no longer recorded. Its handler may run once more than its
    /// device sent messages.
    Unknowable,
}

/// Observer of each LPI that the driver makes pending. The driver makes no LPI pending without a
/// call.
///
/// Both methods may be called in any context, with the lock of the LPI's record held and interrupts
/// masked. They must not call the driver.
pub trait ResendObserver: Send + Sync {
    /// Called before the driver writes `GICR_SETLPIR`. The LPI's handler may run from now on.
    fn resending(&self, resend: Resend);

    /// Called after the driver has written `GICR_SETLPIR`.
    fn resent(&self, resend: Resend);
}
