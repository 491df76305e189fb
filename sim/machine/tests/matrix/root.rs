//! The interface that the boards' root controllers implement.

use crate::cell::Endpoint;
use doorbell_hardware::bus::{Bus, Overlap};
use doorbell_hardware::platform::MachinePlatform;
use irq_domain::Interrupts;
use msi_types::{MsiParent, RequesterId, SignalMsi, WiredParent};
use std::error::Error;
use std::sync::Arc;

/// A part of a board, or the reason why it cannot be built.
pub(crate) type Built<T> = Result<T, Box<dyn Error>>;

/// Number of CPUs on a board.
pub(crate) const CPUS: u16 = 3;

/// Returns the functions that a virtual bus offers, i.e. those on the board's PCI bus.
pub(crate) fn hyperv_functions() -> [RequesterId; 4] {
    Endpoint::FUNCTIONS.map(Endpoint::requester)
}

/// A root controller's hardware, before its drivers have been brought up.
pub(crate) trait RootHardware {
    /// Returns the target for device writes.
    fn upstream(&self) -> Arc<dyn SignalMsi<RequesterId>>;

    /// Attaches the controller's registers to the bus.
    fn claim(&self, bus: &mut Bus) -> Result<(), Overlap>;

    /// Brings up the controller's drivers.
    fn drive(self: Box<Self>, platform: &Arc<MachinePlatform>) -> Built<Driven>;
}

/// A root controller whose drivers have been brought up.
pub(crate) struct Driven {
    pub(crate) root: Box<dyn Root>,
    pub(crate) parent: Arc<dyn MsiParent>,
    pub(crate) wired: Option<Arc<dyn WiredParent>>,
}

/// A root controller and its CPUs.
pub(crate) trait Root {
    /// Makes the CPUs dispatch their interrupts through `interrupts`.
    fn serve(&self, interrupts: &Interrupts);

    /// Lets the CPUs take interrupts until none is pending.
    fn settle(&self);

    /// Returns the number of acknowledged interrupts that had no handler.
    fn strays(&self) -> u64;

    /// Describes the resources that have not been released. Returns `None` if all have been
    /// released.
    fn kept(&self) -> Option<String>;

    /// Returns the number of migrations, or the reason why a migration failed.
    fn migrated(&self) -> Result<u64, String> {
        Ok(0)
    }

    /// Returns a fault that a driver recorded because it could not return an error.
    fn silent_fault(&self) -> Option<String>;
}
