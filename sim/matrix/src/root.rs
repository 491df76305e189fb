//! The interface that the boards' root controllers implement.

use super::cell::{Endpoint, Layer, Parent, World};
use doorbell_hardware::bus::{Bus, Overlap};
use doorbell_hardware::platform::MachinePlatform;
use doorbell_machine::Migration;
use irq_domain::Interrupts;
use msi_types::{Hypervisor, MsiParent, RequesterId, SignalMsi, Surroundings, WiredParent};
use std::sync::Arc;

/// Number of CPUs on a board.
pub(crate) const CPUS: u16 = 3;

/// Returns the functions that a virtual bus offers, i.e. those on the board's PCI bus.
pub(crate) fn hyperv_functions() -> [RequesterId; 4] {
    Endpoint::FUNCTIONS.map(Endpoint::requester)
}

/// Placement of a GIC's redistributors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RedistributorLayout {
    /// All redistributors are in one range.
    Together,
    /// The last redistributor is above the first 4 GiB.
    #[cfg(test)]
    FarApart,
}

/// A board's parameters.
#[derive(Clone, Copy)]
pub(crate) struct BoardConfig {
    pub(crate) parent: Parent,
    pub(crate) layer: Layer,
    pub(crate) spread: RedistributorLayout,
    /// The environment, as reported by the platform.
    pub(crate) world: World,
    /// The actual environment.
    pub(crate) reality: World,
    /// Migration of a GIC during trials. (The APICs of x86 do not migrate.)
    pub(crate) migration: Migration,
}

impl BoardConfig {
    /// Returns a platform that reports its environment correctly and does not migrate.
    pub(crate) fn new(parent: Parent, layer: Layer, world: World) -> Self {
        let (spread, migration) = (RedistributorLayout::Together, Migration::Never);
        Self { parent, layer, spread, world, reality: world, migration }
    }

    /// Returns the surroundings that the kernel states. On Arm, hypervisors don't remap messages. A
    /// virtual bus states itself what its host does.
    pub(crate) fn surroundings(&self) -> Surroundings {
        match (self.world, self.layer) {
            _ if self.parent.is_virtual_bus() => Surroundings::BareMetal,
            (World::BareMetal, _) => Surroundings::BareMetal,
            (World::GuestRemapped, Layer::Remapping) => Surroundings::Guest(Hypervisor::Remaps),
            (World::Guest | World::GuestRemapped, _) => Surroundings::Guest(Hypervisor::Traps),
        }
    }
}

/// A root controller's hardware, before its drivers have been brought up.
pub(crate) trait RootHardware {
    /// Returns the target for device writes.
    fn upstream(&self) -> Arc<dyn SignalMsi<RequesterId>>;

    /// Attaches the controller's registers to the bus.
    fn claim(&self, bus: &mut Bus) -> Result<(), Overlap>;

    /// Brings up the controller's drivers.
    fn drive(self: Box<Self>, platform: &Arc<MachinePlatform>) -> Result<Driven, String>;
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

    /// Returns the senders whose messages a remapping unit blocked, with the fault reasons.
    #[cfg(test)]
    fn remapping_faults(&self) -> Vec<(RequesterId, u8)> {
        Vec::new()
    }

    /// Returns the number of migrations, or the reason why a migration failed.
    fn migrated(&self) -> Result<u64, String> {
        Ok(0)
    }

    /// Returns a GIC's CPUs.
    #[cfg(test)]
    fn gic_cpus(&self) -> Option<&doorbell_machine::sequential::GicCpus> {
        None
    }

    /// Returns a fault that a driver recorded because it could not return an error.
    fn silent_fault(&self) -> Option<String>;
}
