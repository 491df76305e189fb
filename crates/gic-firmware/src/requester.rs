//! Senders of messages: PCI hosts, platform devices and other buses.

use crate::controller::ControllerIndex;
use crate::intx::{IntxPin, IntxRouting, NoIntx, WiredInterrupt};
use crate::iommu::{IommuReference, IommuRouting};
use crate::origin::{Fact, NodeId};
use crate::region::Region;
use crate::status::Status;
use alloc::string::String;
use alloc::vec::Vec;
pub use msi_types::pci::BusRange;
use msi_types::pci::PciWindow;
use msi_types::{DeviceId, RequesterId};

/// A PCI host bridge.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciHost {
    /// Its node.
    pub id: NodeId,
    /// Its compatible strings, most specific first.
    pub compatible: Vec<String>,
    /// State that firmware gives it.
    pub status: Fact<Status>,
    /// Access to its configuration space.
    pub config: Option<Fact<ConfigAccess>>,
    /// The bus numbers behind it.
    pub buses: Fact<BusRange>,
    /// Windows through which CPUs reach its functions' regions (`ranges`). ACPI tables do not
    /// describe windows: they are resources of the bridge in AML (`_CRS`), which the kernel's
    /// interpreter must evaluate.
    pub windows: Vec<Fact<PciWindow>>,
    /// Its PCI domain (segment), if firmware numbers it.
    pub segment: Option<Fact<u32>>,
    /// Through which controllers its functions signal.
    pub msi: MsiRouting,
    /// The controller that the bridge itself is, if it is one.
    pub own_controller: Option<ControllerIndex>,
    /// Bridges and functions below it that have a map of their own.
    pub bridges: Vec<PciBridge>,
    /// The IOMMUs that its functions pass.
    pub iommu: IommuRouting,
    /// Bits of the addresses that its functions can write to; `None` = 64.
    pub address_bits: Option<Fact<u8>>,
    /// Routing of the interrupt pins of its root bus. Set only from a devicetree: ACPI describes it
    /// in AML, from which a kernel can create it by [`IntxRouting::by_device`].
    pub intx: Option<IntxRouting>,
}

impl PciHost {
    /// An enabled generic ECAM host over all the buses that fit into `ecam` (1 MiB each, at most
    /// 256).
    pub fn ecam(id: impl Into<NodeId>, ecam: Region, msi: MsiRouting) -> Self {
        Self {
            id: id.into(),
            compatible: alloc::vec![String::from("pci-host-ecam-generic")],
            status: Fact::stated(Status::Enabled),
            config: Some(Fact::stated(ConfigAccess::Ecam(ecam))),
            buses: Fact::stated(BusRange::of_ecam(ecam)),
            windows: Vec::new(),
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
    /// then each bridge above it up to the root bus: a single element for a function on the root
    /// bus. The bridge above a function is the one whose secondary bus is the function's bus.
    ///
    /// # Errors
    /// All of [`NoIntx`].
    pub fn route_intx(&self, path: &[RequesterId], pin: IntxPin) -> Result<WiredInterrupt, NoIntx> {
        self.intx.as_ref().ok_or(NoIntx::NotDescribed)?.route(path, pin)
    }
}

/// A PCI bridge below a host, or a function, that has a map of requester IDs.
///
/// Of the nodes on the way from a function up to the host, the first that has a map counts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciBridge {
    /// Its node.
    pub id: NodeId,
    /// State that firmware gives it.
    pub status: Fact<Status>,
    /// Device and function numbers from the host's root bus down to its own, eight bits each.
    pub path: Vec<u8>,
    /// The controllers that it and the functions below it signal through.
    pub msi: MsiRouting,
}

/// Method of access to a host bridge's configuration space.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConfigAccess {
    /// ECAM: 4 KiB per function, the first bus of the bridge's range first.
    Ecam(Region),
    /// By the bridge's own means; this is the `config` window, else the first register region.
    Registers(Region),
}

impl ConfigAccess {
    /// The region, however it is used.
    pub const fn region(self) -> Region {
        match self {
            Self::Ecam(region) | Self::Registers(region) => region,
        }
    }
}

/// A device outside of PCI that names an MSI controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlatformDevice {
    /// Its node.
    pub id: NodeId,
    /// Its compatible strings, most specific first.
    pub compatible: Vec<String>,
    /// State that firmware gives it.
    pub status: Fact<Status>,
    /// Its register regions, as far as they can be translated.
    pub registers: Vec<Fact<Region>>,
    /// Role of the node: it signals itself, or devices behind it do.
    pub role: Role,
    /// Controllers that it names.
    pub msi: MsiRouting,
    /// IOMMUs that the accesses of a device pass, with its StreamID at each.
    pub iommus: Vec<Fact<IommuReference>>,
    /// IOMMUs that the devices behind a bus pass.
    pub iommu: IommuRouting,
    /// Bits of the addresses that it can write to; `None` = 64.
    pub address_bits: Option<Fact<u8>>,
}

impl PlatformDevice {
    /// An enabled device.
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

/// Role of a node outside of PCI that names an MSI controller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// A device: [`Description::platform_routes`](crate::Description::platform_routes) says where
    /// it signals.
    Device,
    /// A node behind which devices have requester IDs:
    /// [`Description::route_by`](crate::Description::route_by) says where they signal.
    ///
    /// It is a bus such as `fsl-mc`, or has a map instead of a reference. The requester ID of a
    /// function of a PCI endpoint controller is the function number plus 8 times the virtual
    /// function number. A platform device is requester 0 of its own map.
    Bus,
}

/// Controllers that a node's messages go to.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MsiRouting {
    /// Applied to a requester ID before [`map`](Self::map) is asked; absent = all ones
    /// (`msi-map-mask`).
    pub mask: Option<Fact<u32>>,
    /// By requester ID (`msi-map`); `None` if there is no such property, which is not the same as
    /// an empty one.
    pub map: Option<Vec<Fact<MapEntry>>>,
    /// For the node itself, and for requesters without a map (`msi-parent`).
    pub parents: Vec<Fact<Parent>>,
}

impl MsiRouting {
    /// All requesters to one controller, DeviceID = requester ID.
    pub fn parent(controller: ControllerIndex) -> Self {
        let parent = Parent { target: Target::Controller(controller), specifier: Vec::new() };
        Self { parents: alloc::vec![Fact::stated(parent)], ..Self::default() }
    }

    /// By a map of requester IDs.
    pub fn map(entries: impl IntoIterator<Item = MapEntry>) -> Self {
        Self { map: Some(entries.into_iter().map(Fact::stated).collect()), ..Self::default() }
    }

    /// A platform device's DeviceID at one controller.
    pub fn device(controller: ControllerIndex, device: DeviceId) -> Self {
        let parent =
            Parent { target: Target::Controller(controller), specifier: alloc::vec![device.get()] };
        Self { parents: alloc::vec![Fact::stated(parent)], ..Self::default() }
    }

    /// Does it say nothing at all?
    pub fn is_empty(&self) -> bool {
        self.map.is_none() && self.parents.is_empty()
    }
}

/// One line of a map from requester IDs to DeviceIDs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct MapEntry {
    /// First requester ID.
    pub rid_base: RequesterId,
    /// Number of requester IDs. `rid_base + length` and `device_id_base + length` may lie beyond
    /// 2^32 in faulty firmware; matching never wraps.
    pub length: u32,
    /// Destination of their messages.
    pub target: Target,
    /// The DeviceID of the first.
    pub device_id_base: DeviceId,
}

/// A controller that a device names outright.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Parent {
    /// Controller that the reference leads to.
    pub target: Target,
    /// Cells after the reference; at an ITS one cell, the DeviceID.
    pub specifier: Vec<u32>,
}

impl Parent {
    /// The DeviceID, if the reference has exactly one cell.
    pub fn device_id(&self) -> Option<DeviceId> {
        match *self.specifier.as_slice() {
            [cell] => Some(DeviceId::new(cell)),
            _ => None,
        }
    }
}

/// Node that a reference leads to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Target {
    /// A controller of the same description.
    Controller(ControllerIndex),
    /// No controller: the phandle does not exist, its node is not an MSI controller, or the map
    /// entry does not define the DeviceID of each requester. A finding states which.
    Nowhere,
}
