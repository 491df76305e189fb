//! The interface of the boards' root controllers.

use super::cell::{Endpoint, Layer, Parent, World};
use doorbell_hardware::bus::{Bus, Overlap};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_machine::Migration;
use irq_domain::Interrupts;
use msi_types::{MsiParent, RequesterId, SignalMsi, WiredParent};
use std::sync::Arc;

/// CPUs of a board.
pub(crate) const CPUS: u16 = 3;

/// The functions that a virtual bus offers: those on the board's PCI bus.
pub(crate) fn hyperv_functions() -> [RequesterId; 3] {
    [Endpoint::PciMsi, Endpoint::PciMultiMsi, Endpoint::PciMsix].map(Endpoint::requester)
}

/// The places of a GIC's redistributors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RedistributorLayout {
    /// One after the other.
    Together,
    /// The last one beyond the first 4 GiB.
    #[cfg(test)]
    FarApart,
}

/// The parameters of a board.
#[derive(Clone, Copy)]
pub(crate) struct BoardConfig {
    pub(crate) parent: Parent,
    pub(crate) layer: Layer,
    pub(crate) spread: RedistributorLayout,
    /// The platform's statement about its surroundings.
    pub(crate) world: World,
    /// The true surroundings.
    pub(crate) reality: World,
    /// Migrations of a GIC. (x86's APICs stay.)
    pub(crate) migration: Migration,
}

impl BoardConfig {
    /// A platform that tells the truth about itself, where nothing moves.
    pub(crate) fn new(parent: Parent, layer: Layer, world: World) -> Self {
        let (spread, migration) = (RedistributorLayout::Together, Migration::Never);
        Self { parent, layer, spread, world, reality: world, migration }
    }
}

/// The hardware of a root controller, before there are drivers.
pub(crate) trait RootHardware {
    /// The target of devices' writes.
    fn upstream(&self) -> Arc<dyn SignalMsi<RequesterId>>;

    /// Lets its registers answer.
    fn claim(&self, bus: &mut Bus) -> Result<(), Overlap>;

    /// Brings its drivers up.
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
    /// Interrupts are dispatched by `interrupts` from now on.
    fn serve(&self, interrupts: &Interrupts);

    /// Every CPU takes what is pending, until nothing is.
    fn settle(&self);

    /// Arrivals that found no handler.
    fn strays(&self) -> u64;

    /// Returns the resources that were not given back; `None` if all were.
    fn kept(&self) -> Option<String>;

    /// Messages that a remapping unit stopped: who sent them, and the fault's reason.
    #[cfg(test)]
    fn remapping_faults(&self) -> Vec<(RequesterId, u8)> {
        Vec::new()
    }

    /// Returns the number of migrations, or the reason for which one failed.
    fn migrated(&self) -> Result<u64, String> {
        Ok(0)
    }

    /// The CPUs of a GIC.
    #[cfg(test)]
    fn gic_cpus(&self) -> Option<&doorbell_machine::sequential::GicCpus> {
        None
    }

    /// Returns a fault that a driver could not report in any other way.
    fn silent_fault(&self) -> Option<String>;
}
