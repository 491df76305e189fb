//! Reports every LPI that the driver itself resends to a [`ResendObserver`]. Tests use this to
//! compare handler runs with messages. This module is hidden from the documentation.

use msi_types::{Cpu, HwIrq};

/// An LPI that the driver resends at a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resend {
    /// The LPI.
    pub hwirq: HwIrq,
    /// The CPU at which the LPI becomes pending.
    pub cpu: Cpu,
    /// The reason, which determines whether a spurious handler run is possible.
    pub reason: ResendReason,
}

/// Reason for resending an LPI, in order of decreasing certainty.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum ResendReason {
    /// [`MsiParent::set_pending`](msi_types::MsiParent::set_pending) requested it.
    Requested,
    /// The LPI was pending at a CPU that went offline, so no spurious handler run is possible.
    Carried,
    /// The driver can't determine whether the LPI was pending at a CPU that went offline or lost
    /// power, or at an earlier target that is no longer recorded. The handler may run once more
    /// often than the device sent messages.
    Unknowable,
}

/// Observer for every LPI that the driver resends.
///
/// Both methods may be called in any context, with interrupts masked and the LPI record's lock
/// held. Implementations must not call the driver.
pub trait ResendObserver: Send + Sync {
    /// Called before the driver writes `GICR_SETLPIR`. The LPI's handler may run from now on.
    fn resending(&self, resend: Resend);

    /// Called after the driver has written `GICR_SETLPIR`.
    fn resent(&self, resend: Resend);
}
