//! Reads the nodes that refer to MSI controllers (bindings `pci/pci-msi.txt`,
//! `interrupt-controller/msi.txt`).

use super::gic;
use super::iommu_map::{self, IommuList, MapKind};
use super::msi_controllers::{ControllerList, MSI_CELLS};
use super::tree::{NodeRef, REGION_NAMES, Tree, cells, cells_in_words, regions_if_any};
use super::windows::{self, ECAM_HOSTS, MAP, PARENT, is_pci_bridge, is_pci_host};
use crate::controller::Controller;
use crate::description::{
    BusRange, ConfigAccess, MapEntry, MsiRouting, Parent, PciBridge, PciHost, PlatformDevice, Role,
    Target,
};
use crate::finding::{Fact, FindingList, Region, Rule};
use crate::map_overlap::report_overlaps;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use msi_types::{DeviceId, RequesterId};

/// Compatible strings of buses other than PCI whose devices have requester IDs.
pub(super) const BUSES: &[&str] = &["fsl,qoriq-mc", "xlnx,versal-net-cdx"];

const MASK: &str = "msi-map-mask";

/// All nodes in the tree that may send MSIs.
#[derive(Default)]
pub(super) struct Requesters {
    pub(super) hosts: Vec<PciHost>,
    pub(super) devices: Vec<PlatformDevice>,
    /// Devices behind an IOMMU that send no MSIs.
    pub(super) iommu_users: Vec<PlatformDevice>,
}

impl Requesters {
    pub(super) fn read(
        tree: &Tree<'_>,
        controllers: &ControllerList,
        iommus: &IommuList,
        findings: &mut FindingList,
    ) -> Self {
        let mut requesters = Self::default();
        let mut reader = Reader { tree, controllers, iommus, findings };
        let mut by_node = BTreeMap::new();
        for node in tree.nodes() {
            if is_pci_host(node) {
                by_node.insert(node.index(), requesters.hosts.len());
                requesters.hosts.push(reader.host(node));
            } else if node.has(MAP) && node.parent().is_some_and(is_pci_bridge) {
                // A host precedes the nodes below it, so the list already contains the host.
                let host = node.upwards().find(|above| is_pci_host(*above));
                let place = host.and_then(|host| by_node.get(&host.index()));
                let host = place.and_then(|place| requesters.hosts.get_mut(*place));
                if let (Some(host), Some(bridge)) = (host, reader.bridge(node)) {
                    host.bridges.push(bridge);
                }
            } else if node.has(MAP) || node.has(PARENT) {
                requesters.devices.push(reader.device(node));
            } else if node.has(iommu_map::REFERENCES) || node.has(iommu_map::MAP) {
                requesters.iommu_users.push(reader.device(node));
            }
        }
        requesters
    }
}

struct Reader<'t, 'a, 'f> {
    tree: &'t Tree<'a>,
    controllers: &'t ControllerList,
    iommus: &'t IommuList,
    findings: &'f mut FindingList,
}

impl<'t, 'a> Reader<'t, 'a, '_> {
    fn host(&mut self, node: NodeRef<'t, 'a>) -> PciHost {
        let config = config_space(node);
        PciHost {
            id: node.id(),
            compatible: node.compatible(),
            status: node.status(),
            buses: self.buses(node, config.as_ref()),
            config,
            windows: windows::read(node),
            dma_windows: windows::read_dma(node),
            segment: node
                .number("linux,pci-domain")
                .map(|segment| Fact::new(segment, node.origin("linux,pci-domain"))),
            msi: self.routing(node),
            own_controller: self.controllers.of_node(node),
            bridges: Vec::new(),
            iommu: self.iommus.routing(self.tree, node, self.findings),
            address_bits: None,
            intx: None,
        }
    }

    /// Reads a bridge or function below a host. Bits 15 to 8 of the first cell of `reg` are its
    /// device and function numbers (IEEE 1275 PCI binding §2.2.1.1).
    fn bridge(&mut self, node: NodeRef<'t, 'a>) -> Option<PciBridge> {
        let mut path = Vec::new();
        for below in node.upwards().take_while(|below| !is_pci_host(*below)) {
            let cells = below.property("reg").and_then(cells).unwrap_or_default();
            let Some(address) = cells.first() else {
                let message = "the function's device number is not stated";
                self.findings.add(Rule::MissingProperty, below.origin("reg"), message);
                return None;
            };
            path.push(address.to_be_bytes()[2]);
        }
        path.reverse();
        Some(PciBridge { id: node.id(), status: node.status(), path, msi: self.routing(node) })
    }

    fn device(&mut self, node: NodeRef<'t, 'a>) -> PlatformDevice {
        let device = PlatformDevice {
            id: node.id(),
            compatible: node.compatible(),
            status: node.status(),
            registers: regions_if_any(node),
            role: role(node),
            msi: self.routing(node),
            iommus: self.iommus.passed_by(self.tree, node, self.findings),
            iommu: self.iommus.routing(self.tree, node, self.findings),
            address_bits: None,
        };
        if device.status.is_enabled() && device.role == Role::Device {
            self.check_device_ids(&device);
        }
        device
    }

    fn check_device_ids(&mut self, device: &PlatformDevice) {
        for parent in &device.msi.parents {
            let Target::Controller(index) = parent.target else { continue };
            let Some(to) = self.controllers.get(index) else { continue };
            let cells = usize::try_from(to.msi_cells.value).unwrap_or(usize::MAX);
            // A reference that is cut off has been reported.
            let needs = to.kind.needs_device_id() && parent.specifier.len() >= cells;
            if needs && parent.device_id().is_none() {
                let message = format!(
                    "{} follow the reference to the ITS, not one, the DeviceID",
                    cells_in_words(parent.specifier.len())
                );
                self.findings.add(Rule::MissingDeviceId, parent.origin.clone(), message);
            }
        }
    }

    fn buses(
        &mut self,
        node: NodeRef<'t, 'a>,
        config: Option<&Fact<ConfigAccess>>,
    ) -> Fact<BusRange> {
        const BUSES: &str = "bus-range";
        let origin = node.origin(BUSES);
        let default = match config.map(|config| config.value) {
            Some(ConfigAccess::Ecam(ecam)) => BusRange::of_ecam(ecam),
            _ => BusRange::ALL,
        };
        let Some(value) = node.property(BUSES) else { return Fact::new(default, origin) };
        let stated = match cells(value).as_deref() {
            Some(&[first, last]) => u8::try_from(first).ok().zip(u8::try_from(last).ok()),
            _ => None,
        };
        match stated {
            Some((first, last)) if first <= last => Fact::new(BusRange { first, last }, origin),
            _ => {
                let message = "two bus numbers up to 255 are expected, the lower one first";
                self.findings.add(Rule::MalformedProperty, origin.clone(), message);
                Fact::new(default, origin)
            }
        }
    }

    fn routing(&mut self, node: NodeRef<'t, 'a>) -> MsiRouting {
        let mask = self.mask(node);
        let map = self.map(node, mask.as_ref().map(|mask| mask.value));
        let parents =
            node.property(PARENT).map_or_else(Vec::new, |value| self.parents(node, value));
        MsiRouting { mask, map, parents }
    }

    fn mask(&mut self, node: NodeRef<'t, 'a>) -> Option<Fact<u32>> {
        let value = node.property(MASK)?;
        if let Some(mask) = node.number(MASK) {
            return Some(Fact::new(mask, node.origin(MASK)));
        }
        let message = format!("{} bytes are not a mask of one cell", value.len());
        self.findings.add(Rule::MalformedProperty, node.origin(MASK), message);
        None
    }

    fn map(&mut self, node: NodeRef<'t, 'a>, mask: Option<u32>) -> Option<Vec<Fact<MapEntry>>> {
        const KIND: MapKind = MapKind { property: MAP, cells: MSI_CELLS };
        // Findings about the map would be symptoms of the ITS's wrong number of cells, which is
        // reported for the ITS.
        if iommu_map::is_for_one_cell_its(self.tree, node, KIND) {
            let mut symptoms = FindingList::default();
            let mut reader = Reader { findings: &mut symptoms, ..*self };
            return reader.entries(node, KIND, mask);
        }
        self.entries(node, KIND, mask)
    }

    fn entries(
        &mut self,
        node: NodeRef<'t, 'a>,
        kind: MapKind,
        mask: Option<u32>,
    ) -> Option<Vec<Fact<MapEntry>>> {
        let entries = iommu_map::read(self.tree, node, kind, self.findings)?;
        let mut entry = |entry: &iommu_map::Entry| {
            let target = if self.tree.by_phandle(entry.phandle).is_some() {
                self.target(node, MAP, entry.phandle)
            } else {
                let message = iommu_map::unresolved(self.tree, kind, entry);
                self.findings.add(Rule::UnknownPhandle, node.origin(MAP), message);
                Target::Nowhere
            };
            let entry = MapEntry {
                rid_base: RequesterId::new(entry.first),
                length: entry.length,
                target: if entry.is_translated { target } else { Target::Nowhere },
                // Linux's `of_msi_xlate` keeps the requester ID if the target takes no cells.
                device_id_base: DeviceId::new(entry.output.unwrap_or(entry.first)),
            };
            Fact::new(entry, node.origin(MAP))
        };
        let map: Vec<_> = entries.iter().map(&mut entry).collect();
        iommu_map::check(node, kind, mask, &entries, self.findings);
        report_overlaps(&map, self.findings);
        Some(map)
    }

    fn parents(&mut self, node: NodeRef<'t, 'a>, value: &[u8]) -> Vec<Fact<Parent>> {
        let origin = node.origin(PARENT);
        let Some(cells) = cells(value).filter(|cells| !cells.is_empty()) else {
            let message = format!("{} bytes are not a list of references", value.len());
            self.findings.add(Rule::MalformedProperty, origin, message);
            return Vec::new();
        };
        let mut parents = Vec::new();
        let mut rest = cells.as_slice();
        while let Some((&phandle, after)) = rest.split_first() {
            let target = self.target(node, PARENT, phandle);
            let count = self.cells_at(phandle, after);
            let specifier = after.get(..count).unwrap_or(after);
            if specifier.len() < count {
                let target = self.tree.by_phandle(phandle).map(NodeRef::path);
                let target = target.as_deref().unwrap_or_default();
                let message = format!(
                    "by its `{MSI_CELLS}`, {} must follow the reference to {target}, but {} do",
                    cells_in_words(count),
                    specifier.len()
                );
                self.findings.add(Rule::MalformedProperty, origin.clone(), message);
            }
            parents
                .push(Fact::new(Parent { target, specifier: specifier.to_vec() }, origin.clone()));
            // The target does not exist, so the number of cells, and with it the next reference, is
            // unknown.
            if self.tree.by_phandle(phandle).is_none() {
                break;
            }
            rest = after.get(count..).unwrap_or_default();
        }
        parents
    }

    /// Returns the number of cells that follow a reference to the node with this phandle. If one
    /// cell follows a reference to an ITS, that cell is the DeviceID even if the ITS states another
    /// number of cells, because then the number is wrong, not the reference.
    fn cells_at(&self, phandle: u32, after: &[u32]) -> usize {
        let controller = |phandle: u32| {
            let node = self.tree.by_phandle(phandle)?;
            self.controllers.get(self.controllers.of_node(node)?)
        };
        let Some(to) = controller(phandle) else { return 0 };
        let is_reference = |cell: &u32| controller(*cell).is_some();
        let is_one_id = match after {
            [] => false,
            [id] => !is_reference(id),
            [id, next, ..] => !is_reference(id) && is_reference(next),
        };
        if to.kind.needs_device_id() && is_one_id {
            return 1;
        }
        usize::try_from(to.msi_cells.value).unwrap_or(usize::MAX)
    }

    fn target(&mut self, from: NodeRef<'t, 'a>, property: &'static str, phandle: u32) -> Target {
        let Some(node) = self.tree.by_phandle(phandle) else {
            let message = format!("`{property}`: no node has phandle {phandle:#x}");
            self.findings.add(Rule::UnknownPhandle, from.origin(property), message);
            return Target::Nowhere;
        };
        let Some(index) = self.controllers.of_node(node) else {
            let is_below = |one: &&Controller| {
                let rest = one.id.as_str().strip_prefix(&*node.path());
                rest.is_some_and(|rest| rest.starts_with('/'))
            };
            let hint = match self.controllers.list.iter().find(is_below) {
                Some(below) => format!(", but {} below it is", below.id),
                None => String::new(),
            };
            // The reader of controllers reports nodes that are marked as one.
            if !node.has("msi-controller") {
                let message = format!("{} is not an MSI controller{hint}", node.path());
                self.findings.add(Rule::NotAnMsiController, from.origin(property), message);
            }
            return Target::Nowhere;
        };
        let disabled = self.controllers.get(index).is_some_and(|to| !to.status.is_enabled());
        if disabled && from.status().is_enabled() && !gic::has_unknown_status(node) {
            let is_marked = !node.status().is_enabled();
            let why = if is_marked { "disabled" } else { "ignored by drivers" };
            let message = format!("`{property}` refers to {}, which is {why}", node.path());
            self.findings.add(Rule::DisabledController, from.origin(property), message);
        }
        Target::Controller(index)
    }
}

/// Returns the role of a node. A node is a bus if it has a map, or if its compatible string is that
/// of a bus whose devices have requester IDs.
///
/// A device with both `msi-parent` and `msi-map` signals through `msi-parent`. Since commit
/// f1680d9081e1 ("irqchip/gic-v3-its: Add support for device tree msi-map and msi-mask"), Linux
/// reads the map of a platform device, but only if `msi-parent` does not refer to the ITS.
fn role(node: NodeRef<'_, '_>) -> Role {
    let is_mapped = node.has(MAP) && !node.has(PARENT);
    if is_mapped || node.has(iommu_map::MAP) || node.is_compatible(BUSES) {
        Role::Bus
    } else {
        Role::Device
    }
}

/// Returns a host's configuration space: ECAM if the host's compatible string implies it, or else
/// the region named `config`, or else the first region.
fn config_space(node: NodeRef<'_, '_>) -> Option<Fact<ConfigAccess>> {
    let regions: Vec<Fact<Region>> = regions_if_any(node);
    if node.is_compatible(ECAM_HOSTS) {
        return regions
            .into_iter()
            .next()
            .map(|region| Fact::new(ConfigAccess::Ecam(region.value), region.origin));
    }
    let named = node.strings(REGION_NAMES).position(|name| name == "config");
    let region = regions.get(named.unwrap_or(0)).or(regions.first())?;
    Some(Fact::new(ConfigAccess::Registers(region.value), region.origin.clone()))
}
