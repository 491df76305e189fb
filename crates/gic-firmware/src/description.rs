//! A machine's interrupt wiring, as any firmware describes it.

use crate::controller::{Controller, ControllerIndex};
use crate::finding::Finding;
use crate::gic::{BROKEN_SAVE_RESTORE, Gic, SecondaryGic};
use crate::iommu::{Iommu, IommuIndex};
use crate::origin::{Fact, NodeId};
use crate::region::Region;
use crate::requester::{PciHost, PlatformDevice};
use crate::status::Status;
use crate::wired::WiredUser;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::Affinity;

/// A machine as far as its interrupts are concerned.
///
/// Addresses are CPU physical addresses. Nodes that firmware disables are listed too, with their
/// [`Status`]: an operating system must skip them, a linter of firmware needs them. Lists are in
/// the order of the input.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// The machine's model name, if it has one.
    pub model: Option<Fact<String>>,
    /// By which names firmware identifies the machine, the most specific first.
    pub compatible: Vec<String>,
    /// The MADT's OEM ID, without trailing blanks. `None` if it is blank, and if the machine is not
    /// described by ACPI tables.
    pub oem_id: Option<String>,
    /// The CPUs.
    pub cpus: Vec<CpuNode>,
    /// The root interrupt controller; `None` if none of this family is described.
    pub gic: Option<Gic>,
    /// GICs of this family beside the root. ACPI has none.
    pub secondary_gics: Vec<SecondaryGic>,
    /// Everything that takes messages, of whatever kind. [`ControllerIndex`] counts here.
    pub controllers: Vec<Controller>,
    /// IOMMUs. [`IommuIndex`] counts here.
    pub iommus: Vec<Iommu>,
    /// PCI host bridges.
    pub hosts: Vec<PciHost>,
    /// Devices outside of PCI that name an MSI controller.
    pub devices: Vec<PlatformDevice>,
    /// Users of wired interrupts of [`gic`](Self::gic). Devicetree only: in ACPI, AML says them.
    pub wired: Vec<WiredUser>,
    /// RAM.
    pub memory: Vec<Fact<Region>>,
    /// Defects of the input, in the order in which they were met.
    pub findings: Vec<Finding>,
}

impl Description {
    /// The controller with this index; `None` if the index is another description's.
    pub fn controller(&self, index: ControllerIndex) -> Option<&Controller> {
        self.controllers.get(index.get())
    }

    /// The IOMMU with this index; `None` if the index is another description's.
    pub fn iommu(&self, index: IommuIndex) -> Option<&Iommu> {
        self.iommus.get(index.get())
    }

    /// All controllers with their indices.
    pub fn indexed_controllers(&self) -> impl Iterator<Item = (ControllerIndex, &Controller)> {
        self.controllers
            .iter()
            .enumerate()
            .map(|(index, controller)| (ControllerIndex::new(index), controller))
    }

    /// The root GIC and the secondary ones.
    pub fn gics(&self) -> impl Iterator<Item = &Gic> {
        self.gic.iter().chain(self.secondary_gics.iter().map(|secondary| &secondary.gic))
    }

    /// The GIC whose interrupts `controller` makes pending.
    pub fn gic_of(&self, controller: &Controller) -> Option<&Gic> {
        match &controller.secondary_gic {
            None => self.gic.as_ref(),
            Some(id) => self.gics().find(|gic| gic.id == *id),
        }
    }

    /// The enabled controllers of the root GIC.
    pub fn root_controllers(&self) -> impl Iterator<Item = &Controller> {
        let usable = |one: &&Controller| one.status.is_enabled() && one.secondary_gic.is_none();
        self.controllers.iter().filter(usable)
    }

    /// The names by which drivers know where the machine's GIC departs from the architecture. Those
    /// of the machine come first, then those of the GIC and the quirks that its node states.
    pub fn quirk_names(&self) -> impl Iterator<Item = &str> {
        let of_gic = self.gic.iter().flat_map(|gic| {
            let property = gic.broken_save_restore.then_some(BROKEN_SAVE_RESTORE);
            gic.compatible.iter().map(String::as_str).chain(property)
        });
        self.compatible.iter().map(String::as_str).chain(of_gic)
    }

    /// The CPUs that firmware enables.
    pub fn enabled_cpus(&self) -> impl Iterator<Item = &CpuNode> {
        self.cpus.iter().filter(|cpu| cpu.status.is_enabled())
    }
}

/// A CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuNode {
    /// Its node.
    pub id: NodeId,
    /// Its affinity, `MPIDR_EL1`'s.
    pub affinity: Fact<Affinity>,
    /// State that firmware gives it.
    pub status: Fact<Status>,
}

impl CpuNode {
    /// An enabled CPU.
    pub fn new(id: impl Into<NodeId>, affinity: Affinity) -> Self {
        Self {
            id: id.into(),
            affinity: Fact::stated(affinity),
            status: Fact::stated(Status::Enabled),
        }
    }
}
