//! A machine's interrupt wiring, in a form independent of the firmware that describes it:
//! controllers, requesters (PCI hosts, platform devices and other buses), and the IOMMUs between
//! them and memory.

use crate::controller::{
    BROKEN_SAVE_RESTORE, Controller, ControllerIndex, ControllerKind, Gic, IntxPin, IntxRouting,
    NoIntx, SET_REGISTER, SecondaryGic, WiredInterrupt,
};
use crate::finding::{Fact, Finding, NodeId, Region, Status};
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::{Affinity, IntId};
use msi_types::pci::PciWindow;
use msi_types::{DeviceId, RequesterId};

pub use msi_types::pci::BusRange;

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

/// A PCI host bridge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciHost {
    /// Node of the host bridge.
    pub id: NodeId,
    /// Compatible strings, most specific first.
    pub compatible: Vec<String>,
    /// Status of the host bridge according to firmware.
    pub status: Fact<Status>,
    /// Access method for the functions' configuration space.
    pub config: Option<Fact<ConfigAccess>>,
    /// Bus numbers behind the bridge.
    pub buses: Fact<BusRange>,
    /// Windows through which CPUs access the BARs of the functions (`ranges`). Empty under ACPI,
    /// where the windows are resources of the bridge in AML (`_CRS`), which the kernel's
    /// interpreter must evaluate.
    pub windows: Vec<Fact<PciWindow>>,
    /// Windows through which the functions reach memory and doorbells (`dma-ranges`). Empty if
    /// firmware states no limit, as under ACPI, where the windows are in AML (`_DMA`).
    pub dma_windows: Vec<Fact<PciWindow>>,
    /// PCI domain (segment), if firmware numbers it.
    pub segment: Option<Fact<u32>>,
    /// MSI controllers that receive the functions' messages.
    pub msi: MsiRouting,
    /// MSI controller that is integrated in the bridge, if it has one.
    pub own_controller: Option<ControllerIndex>,
    /// Bridges and functions below the host bridge that have their own map.
    pub bridges: Vec<PciBridge>,
    /// IOMMUs that translate the functions' accesses.
    pub iommu: IommuRouting,
    /// Number of address bits in the functions' writes; `None` if firmware states no limit below
    /// 64.
    pub address_bits: Option<Fact<u8>>,
    /// Routing of the interrupt pins of the root bus. `None` under ACPI, which describes the
    /// routing in AML; a kernel that interprets AML can create the routing with
    /// [`IntxRouting::by_device`].
    pub intx: Option<IntxRouting>,
}

impl PciHost {
    /// Creates an enabled generic ECAM host for all buses that fit into `ecam` (1 MiB each, at most
    /// 256).
    pub fn ecam(id: impl Into<NodeId>, ecam: Region, msi: MsiRouting) -> Self {
        Self {
            id: id.into(),
            compatible: alloc::vec![String::from("pci-host-ecam-generic")],
            status: Fact::stated(Status::Enabled),
            config: Some(Fact::stated(ConfigAccess::Ecam(ecam))),
            buses: Fact::stated(BusRange::of_ecam(ecam)),
            windows: Vec::new(),
            dma_windows: Vec::new(),
            segment: None,
            msi,
            own_controller: None,
            bridges: Vec::new(),
            iommu: IommuRouting::default(),
            address_bits: None,
            intx: None,
        }
    }

    /// Returns the wired interrupt of a PCI function's pin. `path` must have the function first,
    /// then each bridge above it up to the root bus: a single element if the function is on the
    /// root bus. The bridge above a function is the bridge whose secondary bus is the function's
    /// bus.
    ///
    /// # Errors
    /// Returns [`NoIntx`] if the routing has no interrupt of the GIC for the pin, or if `path` is
    /// empty.
    pub fn route_intx(&self, path: &[RequesterId], pin: IntxPin) -> Result<WiredInterrupt, NoIntx> {
        self.intx.as_ref().ok_or(NoIntx::NotDescribed)?.route(path, pin)
    }
}

/// A PCI bridge below a host, or a function, that has a map of requester IDs.
///
/// A function uses the map of the first node that has one, on the path from the function up to the
/// host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciBridge {
    /// Node of the bridge or function.
    pub id: NodeId,
    /// Status of the node according to firmware.
    pub status: Fact<Status>,
    /// Path of device and function numbers, eight bits per level, from the host's root bus to the
    /// node.
    pub path: Vec<u8>,
    /// MSI controllers that receive the messages of this function, or of the bridge and the
    /// functions below it.
    pub msi: MsiRouting,
}

/// Access method for the configuration space behind a host bridge.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConfigAccess {
    /// ECAM, with 4 KiB per function, starting with the first bus of the bridge's range.
    Ecam(Region),
    /// A bridge-specific method, which uses the `config` window, or else the first register region.
    Registers(Region),
}

impl ConfigAccess {
    /// Returns the region of either access method.
    pub const fn region(self) -> Region {
        match self {
            Self::Ecam(region) | Self::Registers(region) => region,
        }
    }
}

/// A non-PCI device that refers to an MSI controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlatformDevice {
    /// Node of the device.
    pub id: NodeId,
    /// Compatible strings, most specific first.
    pub compatible: Vec<String>,
    /// Status of the device according to firmware.
    pub status: Fact<Status>,
    /// Register regions whose addresses can be translated.
    pub registers: Vec<Fact<Region>>,
    /// Role of the node: whether the node sends messages itself or is a bus whose devices send
    /// them.
    pub role: Role,
    /// MSI controllers that the device refers to.
    pub msi: MsiRouting,
    /// IOMMUs that translate the device's accesses, with its StreamID at each.
    pub iommus: Vec<Fact<IommuReference>>,
    /// Map from requester IDs to IOMMUs, for a bus.
    pub iommu: IommuRouting,
    /// Number of address bits in the device's writes; `None` if firmware states no limit below 64.
    pub address_bits: Option<Fact<u8>>,
}

impl PlatformDevice {
    /// Creates an enabled device.
    pub fn new(id: impl Into<NodeId>, compatible: &str, msi: MsiRouting) -> Self {
        Self {
            id: id.into(),
            compatible: alloc::vec![String::from(compatible)],
            status: Fact::stated(Status::Enabled),
            registers: Vec::new(),
            role: Role::Device,
            msi,
            iommus: Vec::new(),
            iommu: IommuRouting::default(),
            address_bits: None,
        }
    }
}

/// Role of a non-PCI node that refers to an MSI controller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// A device. [`Description::platform_routes`](crate::Description::platform_routes) returns its
    /// routes.
    Device,
    /// A node with devices behind it that have requester IDs.
    /// [`Description::route_by`](crate::Description::route_by) returns their routes.
    ///
    /// The node is a bus such as `fsl-mc`, or it has `msi-map` instead of `msi-parent`. The
    /// requester ID of a function of a PCI endpoint controller is the function number plus 8 times
    /// the virtual function number. A platform device with its own map is requester 0 in that map.
    Bus,
}

/// Routing of a node's messages to MSI controllers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MsiRouting {
    /// Mask applied to a requester ID before it is looked up in [`map`](Self::map); an absent mask
    /// means all ones (`msi-map-mask`).
    pub mask: Option<Fact<u32>>,
    /// Map from requester IDs (`msi-map`); `None` if the property is absent, which differs from an
    /// empty map.
    pub map: Option<Vec<Fact<MapEntry>>>,
    /// Controllers that serve the node itself, and requesters without a map entry (`msi-parent`).
    pub parents: Vec<Fact<Parent>>,
}

impl MsiRouting {
    /// Creates a routing of all requesters to one controller, with DeviceID = requester ID.
    pub fn parent(controller: ControllerIndex) -> Self {
        let parent = Parent { target: Target::Controller(controller), specifier: Vec::new() };
        Self { parents: alloc::vec![Fact::stated(parent)], ..Self::default() }
    }

    /// Creates a routing by a map of requester IDs.
    pub fn map(entries: impl IntoIterator<Item = MapEntry>) -> Self {
        Self { map: Some(entries.into_iter().map(Fact::stated).collect()), ..Self::default() }
    }

    /// Creates the routing of a platform device with one DeviceID at one controller.
    pub fn device(controller: ControllerIndex, device: DeviceId) -> Self {
        let parent =
            Parent { target: Target::Controller(controller), specifier: alloc::vec![device.get()] };
        Self { parents: alloc::vec![Fact::stated(parent)], ..Self::default() }
    }

    /// Returns `true` if the routing has neither a map nor parents.
    pub fn is_empty(&self) -> bool {
        self.map.is_none() && self.parents.is_empty()
    }
}

/// One entry of a map from requester IDs to DeviceIDs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MapEntry {
    /// First requester ID.
    pub rid_base: RequesterId,
    /// Number of requester IDs. In faulty firmware, `rid_base + length` and `device_id_base +
    /// length` may exceed 2^32; matching never wraps.
    pub length: u32,
    /// Destination of the requesters' messages.
    pub target: Target,
    /// DeviceID of the first requester.
    pub device_id_base: DeviceId,
}

/// A controller that a device refers to directly.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Parent {
    /// Controller that the reference resolves to.
    pub target: Target,
    /// Cells after the phandle in the reference; for an ITS, a single cell with the DeviceID.
    pub specifier: Vec<u32>,
}

impl Parent {
    /// Returns the DeviceID, if the reference has exactly one cell.
    pub fn device_id(&self) -> Option<DeviceId> {
        match *self.specifier.as_slice() {
            [cell] => Some(DeviceId::new(cell)),
            _ => None,
        }
    }
}

/// Node that a reference resolves to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A controller of the same description.
    Controller(ControllerIndex),
    /// No controller, because the phandle does not exist, its node is not an MSI controller, or the
    /// map entry does not define the DeviceID of each requester. A finding states the reason.
    Nowhere,
}

/// An IOMMU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Iommu {
    /// Node of the IOMMU. If the IOMMU sends MSIs itself, a platform device with the same node also
    /// exists.
    pub id: NodeId,
    /// Compatible strings, most specific first.
    pub compatible: Vec<String>,
    /// Status of the IOMMU according to firmware.
    pub status: Fact<Status>,
    /// Registers of the IOMMU.
    pub registers: Option<Fact<Region>>,
}

/// Index of an IOMMU in [`Description::iommus`](crate::Description::iommus).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IommuIndex(usize);

impl IommuIndex {
    /// Creates the index of the IOMMU at this position.
    pub const fn new(index: usize) -> Self {
        Self(index)
    }

    /// Returns the IOMMU's position in the list.
    pub const fn get(self) -> usize {
        self.0
    }
}

/// A device's reference to the IOMMU that translates its accesses.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct IommuReference {
    /// Referenced IOMMU.
    pub iommu: IommuIndex,
    /// Cells after the phandle in the reference; for an SMMU, the StreamID, optionally followed by
    /// a mask.
    pub specifier: Vec<u32>,
}

impl IommuReference {
    /// Returns the StreamID, which is the first cell; `None` if the reference has no cells.
    pub fn stream_id(&self) -> Option<u32> {
        self.specifier.first().copied()
    }
}

/// Map from requester IDs behind a PCI host (or another bus) to IOMMU StreamIDs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct IommuRouting {
    /// Mask applied to a requester ID before it is looked up in [`map`](Self::map); an absent mask
    /// means all ones (`iommu-map-mask`).
    pub mask: Option<Fact<u32>>,
    /// Entries by requester ID (`iommu-map`, or an IORT's mappings to SMMUs). The accesses of a
    /// requester without an entry pass through no IOMMU.
    pub map: Vec<Fact<StreamEntry>>,
}

impl IommuRouting {
    /// Returns the IOMMU that translates accesses of `requester`, and the requester's StreamID at
    /// that IOMMU. Returns `None` if no IOMMU translates them, if the reference to the IOMMU is
    /// broken, or if the IOMMU has no StreamIDs.
    ///
    /// As for `msi-map`, the first entry that contains the masked ID is used. The search ends at an
    /// entry whose first ID has bits that the mask clears.
    pub fn stream(&self, requester: RequesterId) -> Option<(IommuIndex, u32)> {
        let mask = self.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
        let masked = requester.get() & mask;
        for entry in &self.map {
            let first = entry.rid_base.get();
            if first & !mask != 0 {
                return None;
            }
            if let Some(offset) = masked.checked_sub(first).filter(|&offset| offset < entry.length)
            {
                return Some((entry.iommu?, entry.stream_id_base?.checked_add(offset)?));
            }
        }
        None
    }
}

/// One entry of a map from requester IDs to StreamIDs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct StreamEntry {
    /// First requester ID.
    pub rid_base: RequesterId,
    /// Number of requester IDs.
    pub length: u32,
    /// IOMMU that translates the requesters' accesses; `None` if the reference is broken, or if the
    /// entry does not define the StreamID of each requester. A finding then states the reason.
    pub iommu: Option<IommuIndex>,
    /// StreamID of the first requester; `None` if `#iommu-cells` of the IOMMU is 0.
    pub stream_id_base: Option<u32>,
}
