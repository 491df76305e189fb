//! A machine's interrupt wiring, in a form independent of the firmware that describes it.

use crate::controller::{
    BROKEN_SAVE_RESTORE, Controller, ControllerIndex, ControllerKind, Gic, SET_REGISTER,
    SecondaryGic,
};
use crate::finding::{Fact, Finding, NodeId, Region, Status};
use crate::requester::{Iommu, IommuIndex, PciHost, PlatformDevice};
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::{Affinity, IntId};
use msi_types::DeviceId;

/// Distance between GICv3 redistributors in bytes, if firmware states none.
const DEFAULT_STRIDE: u64 = 0x2_0000;

/// The interrupt-related parts of a machine.
///
/// Addresses are CPU physical addresses. Disabled nodes are listed as well, with their [`Status`]:
/// an operating system must skip them, but a firmware linter needs them. Lists are in the order of
/// the input.
///
/// The following summary works for any kind of firmware:
///
/// ```
/// use gic_firmware::{Description, devicetree};
///
/// fn summary(machine: &Description) -> String {
///     let controllers = machine.controllers.iter().map(|controller| controller.kind.to_string());
///     format!("{} CPUs, {}", machine.enabled_cpus().count(), controllers.collect::<String>())
/// }
///
/// let machine = devicetree::parse(include_bytes!("../tests/data/single-its.dtb"))?;
/// assert_eq!(summary(&machine), "2 CPUs, its");
/// # Ok::<(), devicetree::DtbError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Description {
    /// Model name of the machine, if it has one.
    pub model: Option<Fact<String>>,
    /// Compatible strings of the machine, most specific first.
    pub compatible: Vec<String>,
    /// OEM ID of the MADT, without trailing blanks. `None` if it is blank, or if the machine is not
    /// described by ACPI tables.
    pub oem_id: Option<String>,
    /// Hypervisor that the machine's firmware names: the compatible string of `/hypervisor`, or the
    /// hypervisor vendor of the FADT (ACPI 6.5 §5.2.9). Firmware of a guest need not name it.
    pub hypervisor: Option<Fact<String>>,
    /// Instruction that calls PSCI: `hvc` or `smc`. A guest's is usually `hvc`, and so is that of a
    /// kernel below firmware at EL2. Absent if the tables include no FADT.
    pub psci: Option<Fact<String>>,
    /// CPUs.
    pub cpus: Vec<CpuNode>,
    /// Root interrupt controller; `None` if the input describes no GIC.
    pub gic: Option<Gic>,
    /// GICs other than the root GIC. Empty under ACPI.
    pub secondary_gics: Vec<SecondaryGic>,
    /// MSI controllers of every kind. A [`ControllerIndex`] is an index into this list.
    pub controllers: Vec<Controller>,
    /// IOMMUs. An [`IommuIndex`] is an index into this list.
    pub iommus: Vec<Iommu>,
    /// PCI host bridges.
    pub hosts: Vec<PciHost>,
    /// Non-PCI devices that refer to an MSI controller.
    pub devices: Vec<PlatformDevice>,
    /// Non-PCI devices and buses behind an IOMMU that refer to no MSI controller.
    pub iommu_users: Vec<PlatformDevice>,
    /// Users of wired interrupts of [`gic`](Self::gic). Empty under ACPI, which describes wired
    /// interrupts in AML.
    pub wired: Vec<WiredUser>,
    /// RAM regions.
    pub memory: Vec<Fact<Region>>,
    /// Defects of the input, in the order in which they were found.
    pub findings: Vec<Finding>,
}

impl Description {
    /// Returns the controller with this index; `None` if the list has no such index.
    pub fn controller(&self, index: ControllerIndex) -> Option<&Controller> {
        self.controllers.get(index.get())
    }

    /// Returns the IOMMU with this index; `None` if the list has no such index.
    pub fn iommu(&self, index: IommuIndex) -> Option<&Iommu> {
        self.iommus.get(index.get())
    }

    /// Returns all controllers with their indices.
    pub fn indexed_controllers(&self) -> impl Iterator<Item = (ControllerIndex, &Controller)> {
        self.controllers
            .iter()
            .enumerate()
            .map(|(index, controller)| (ControllerIndex::new(index), controller))
    }

    /// Returns the root GIC and the secondary GICs.
    pub fn gics(&self) -> impl Iterator<Item = &Gic> {
        self.gic.iter().chain(self.secondary_gics.iter().map(|secondary| &secondary.gic))
    }

    /// Returns the GIC that `controller` belongs to.
    pub fn gic_of(&self, controller: &Controller) -> Option<&Gic> {
        match &controller.secondary_gic {
            None => self.gic.as_ref(),
            Some(id) => self.gics().find(|gic| gic.id == *id),
        }
    }

    /// Returns the enabled controllers of the root GIC.
    pub fn root_controllers(&self) -> impl Iterator<Item = &Controller> {
        let usable = |one: &&Controller| one.status.is_enabled() && one.secondary_gic.is_none();
        self.controllers.iter().filter(usable)
    }

    /// Returns the names that drivers match to detect GIC quirks: the machine's names, then the
    /// GIC's, then the quirk property in the GIC node.
    pub fn quirk_names(&self) -> impl Iterator<Item = &str> {
        let of_gic = self.gic.iter().flat_map(|gic| {
            let property = gic.broken_save_restore.then_some(BROKEN_SAVE_RESTORE);
            gic.compatible.iter().map(String::as_str).chain(property)
        });
        self.compatible.iter().map(String::as_str).chain(of_gic)
    }

    /// Returns the CPUs that firmware enables.
    pub fn enabled_cpus(&self) -> impl Iterator<Item = &CpuNode> {
        self.cpus.iter().filter(|cpu| cpu.status.is_enabled())
    }

    /// Returns the CPU physical address of each doorbell of `controller`, without translation by an
    /// IOMMU.
    ///
    /// An ITS, MBI and a v2m frame each have one doorbell; for an ITS with a pre-ITS, it is the
    /// first word of the window. Foreign controllers have no known doorbell. Direct LPI has one
    /// doorbell per redistributor that the regions and the stride describe, but at most one per
    /// CPU.
    pub fn doorbells(&self, controller: &Controller) -> Vec<u64> {
        match (&controller.kind, self.gic_of(controller)) {
            (ControllerKind::DirectLpi, Some(gic)) => {
                let stride =
                    gic.redistributor_stride.as_ref().map_or(DEFAULT_STRIDE, |stride| stride.value);
                gic.redistributors
                    .iter()
                    .flat_map(|region| frames(region.value, stride))
                    .filter_map(|frame| frame.checked_add(SET_REGISTER))
                    .take(self.cpus.len())
                    .collect()
            }
            _ => controller.doorbell(DeviceId::new(0)).into_iter().collect(),
        }
    }
}

/// A CPU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuNode {
    /// Node of the CPU.
    pub id: NodeId,
    /// Affinity of the CPU, as in `MPIDR_EL1`.
    pub affinity: Fact<Affinity>,
    /// Status of the CPU according to firmware.
    pub status: Fact<Status>,
}

impl CpuNode {
    /// Creates an enabled CPU.
    pub fn new(id: impl Into<NodeId>, affinity: Affinity) -> Self {
        Self {
            id: id.into(),
            affinity: Fact::stated(affinity),
            status: Fact::stated(Status::Enabled),
        }
    }
}

/// A node whose interrupt lines are connected to the GIC, or a nexus that connects other nodes'
/// lines to the GIC.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WiredUser {
    /// Node of the user.
    pub id: NodeId,
    /// Status of the node according to firmware.
    pub status: Fact<Status>,
    /// Interrupts, in firmware's order. A timer (`arm,armv8-timer`) has the PPIs of the secure,
    /// physical, virtual and hypervisor timers.
    pub interrupts: Vec<Fact<IntId>>,
}

/// Returns the addresses of the redistributors that fit into `region`.
fn frames(region: Region, stride: u64) -> impl Iterator<Item = u64> {
    let count = region.size().checked_div(stride).unwrap_or(0);
    (0..count).map(move |index| region.base() + index * stride)
}
