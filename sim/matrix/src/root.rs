//! The interface of the boards' root controllers.

use super::cell::{Endpoint, Layer, Parent, World};
use doorbell_hardware::bus::{Bus, Overlap};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_machine::Migration;
use irq_domain::Interrupts;
use msi_types::{MsiParent, RequesterId, SignalMsi, WiredParent};
use std::sync::Arc;

/// Number of CPUs of a board.
pub(crate) const CPUS: u16 = 3;

/// Returns the functions that a virtual bus offers: those on the board's PCI bus.
pub(crate) fn hyperv_functions() -> [RequesterId; 3] {
    [Endpoint::PciMsi, Endpoint::PciMultiMsi, Endpoint::PciMsix].map(Endpoint::requester)
}

/// The placement of a GIC's redistributors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RedistributorLayout {
    /// All in one range.
    Together,
    /// The last one above the first 4 GiB.
    #[cfg(test)]
    FarApart,
}

/// The parameters of a board.
#[derive(Clone, Copy)]
pub(crate) struct BoardConfig {
    pub(crate) parent: Parent,
    pub(crate) layer: Layer,
    pub(crate) spread: RedistributorLayout,
    /// The environment that the platform reports.
    pub(crate) world: World,
    /// The actual environment.
    pub(crate) reality: World,
    /// Migrations of a GIC. x86's APICs do not migrate.
    pub(crate) migration: Migration,
}

impl BoardConfig {
    /// Returns a platform that reports its environment correctly, without migrations.
    pub(crate) fn new(parent: Parent, layer: Layer, world: World) -> Self {
        let (spread, migration) = (RedistributorLayout::Together, Migration::Never);
        Self { parent, layer, spread, world, reality: world, migration }
    }
}

/// The hardware of a root controller, before its drivers are up.
pub(crate) trait RootHardware {
    /// Returns the target of devices' writes.
    fn upstream(&self) -> Arc<dyn SignalMsi<RequesterId>>;

    /// Attaches the controller's registers to the bus.
    fn claim(&self, bus: &mut Bus) -> Result<(), Overlap>;

    /// Brings up the controller's drivers.
    fn drive(self: Box<Self>, platform: &Arc<MachinePlatform>) -> Result<Driven, String>;
}

/// A root controller with its drivers.
pub(crate) struct Driven {
    pub(crate) root: Box<dyn Root>,
    pub(crate) parent: Arc<dyn MsiParent>,
    pub(crate) wired: Option<Arc<dyn WiredParent>>,
}

/// A root controller and its CPUs.
pub(crate) trait Root {
    /// Lets `interrupts` dispatch the CPUs' interrupts from now on.
    fn serve(&self, interrupts: &Interrupts);

    /// Lets the CPUs take their pending interrupts, until none is pending.
    fn settle(&self);

    /// Returns the number of arrivals without a handler.
    fn strays(&self) -> u64;

    /// Returns a description of the resources that were not released, if any.
    fn kept(&self) -> Option<String>;

    /// Returns the senders of messages that a remapping unit blocked, with the fault reasons.
    #[cfg(test)]
    fn remapping_faults(&self) -> Vec<(RequesterId, u8)> {
        Vec::new()
    }

    /// Returns the number of migrations, or the reason why one failed.
    fn migrated(&self) -> Result<u64, String> {
        Ok(0)
    }

    /// Returns the CPUs of a GIC.
    #[cfg(test)]
    fn gic_cpus(&self) -> Option<&doorbell_machine::sequential::GicCpus> {
        None
    }

    /// Returns a fault that a driver could not report otherwise.
    fn silent_fault(&self) -> Option<String>;
}
