//! Writes descriptions as devicetrees.

mod lines;
mod names;
mod references;

pub use names::with_node_paths;
pub use references::{WriteError, WriteErrorKind};

use super::blob::{MAX_DEPTH, MAX_NAME, MAX_PATH};
use super::bridge_controllers::{self, PORT_LOGIC};
use super::msi_controllers::{MIP, PRE_ITS};
use super::requester_nodes::BUSES;
use super::tree::REGION_NAMES;
use super::windows::{self, ECAM_HOSTS};
use super::{interrupt_tree, iommu_map};
use crate::controller::{
    BROKEN_SAVE_RESTORE, Controller, ControllerKind, Gic, GicVersion, SecondaryGic,
};
use crate::description::{
    ConfigAccess, CpuNode, Description, Iommu, IommuIndex, IommuRouting, PciBridge, PciHost,
    PlatformDevice, Role,
};
use crate::finding::NodeId;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;
use dtoolkit::model::{DeviceTree, DeviceTreeNode};
use references::{
    References, flag, regions, set, set_bus, set_coherence, set_cpus, set_gic_facet, set_status,
    strings,
};

/// Writes `description` as a flattened devicetree, for simulated machines and tests.
///
/// Apart from findings, the result reads back as an equal description under three conditions:
///
/// - Every identifier is a node path.
/// - The lists are in the order in which this function writes nodes: CPUs, GICs starting with the
///   root, controllers, IOMMUs, hosts, devices, each below its ancestors. If their order differs,
///   the description that is read back differs only in the order of the lists and in the indices.
/// - No enabled node is below a disabled node.
///
/// The tree omits the hypervisor, PSCI, address limits, and wired interrupts other than those of
/// secondary GICs. Maps to a Direct LPI controller also omit the DeviceIDs, because references to
/// it have no cells.
///
/// Origins are not written: the identifier of each part determines the node that its facts are
/// written to. A GIC's version is written as its compatible strings (a devicetree does not
/// distinguish GICv4 from GICv3).
///
/// # Errors
///
/// Returns an error if `description` cannot be expressed in a devicetree. The caller is at fault.
pub fn write(description: &Description) -> Result<Vec<u8>, WriteError> {
    tree(description).map(|tree| tree.to_dtb())
}

/// Writes `description` like [`write()`], as the source that `dtc` compiles.
///
/// # Errors
///
/// Returns an error if `description` cannot be expressed in a devicetree. The caller is at fault.
pub fn write_source(description: &Description) -> Result<String, WriteError> {
    tree(description).map(|tree| tree.to_string())
}

fn tree(description: &Description) -> Result<DeviceTree, WriteError> {
    check_unique(description)?;
    let mut writer = Writer {
        tree: DeviceTree::new(),
        gics: description.gics().map(|gic| &gic.id).collect(),
        references: References::of(description),
    };
    writer.root(description);
    for cpu in &description.cpus {
        writer.cpu(cpu)?;
    }
    if let Some(gic) = &description.gic {
        writer.gic(gic)?;
    }
    for secondary in &description.secondary_gics {
        writer.secondary_gic(secondary)?;
    }
    for (number, controller) in (1u32..).zip(&description.controllers) {
        writer.controller(controller, description.gic_of(controller))?;
        set(writer.node(&controller.id)?, "phandle", number);
    }
    for (index, iommu) in description.iommus.iter().enumerate() {
        writer.iommu(index, iommu)?;
    }
    for host in &description.hosts {
        writer.host(host)?;
    }
    for device in description.devices.iter().chain(&description.iommu_users) {
        writer.device(device)?;
    }
    Ok(writer.tree)
}

/// Sets `iommu-map` of a host or another bus to `streams`, and sets `iommu-map-mask`.
fn set_streams(node: &mut DeviceTreeNode, routing: &IommuRouting, streams: Vec<u32>) {
    if !routing.map.is_empty() {
        set(node, iommu_map::MAP, streams);
    }
    if let Some(mask) = &routing.mask {
        set(node, iommu_map::MASK, mask.value);
    }
}

/// Flags for a level-triggered, active-high GIC interrupt (`arm,gic.yaml`).
const LEVEL_HIGH: u32 = 4;

fn check_unique(description: &Description) -> Result<(), WriteError> {
    fn check<'d>(ids: impl Iterator<Item = &'d NodeId>) -> Result<(), WriteError> {
        let mut seen = BTreeSet::new();
        for id in ids {
            if !seen.insert(id) {
                return Err(WriteErrorKind::Twice.of(id));
            }
        }
        Ok(())
    }
    check(description.cpus.iter().map(|cpu| &cpu.id))?;
    check(description.controllers.iter().map(|controller| &controller.id))?;
    let hosts = description.hosts.iter().map(|host| &host.id);
    let devices = description.devices.iter().chain(&description.iommu_users);
    check(hosts.chain(devices.map(|device| &device.id)))
}

struct Writer<'d> {
    tree: DeviceTree,
    gics: Vec<&'d NodeId>,
    references: References<'d>,
}

impl Writer<'_> {
    fn root(&mut self, description: &Description) {
        set_bus(&mut self.tree.root);
        if let Some(model) = &description.model {
            set(&mut self.tree.root, "model", model.value.as_str());
        }
        if !description.compatible.is_empty() {
            set(&mut self.tree.root, "compatible", strings(&description.compatible));
        }
        if !description.memory.is_empty() {
            let mut memory = DeviceTreeNode::new_unchecked("memory");
            set(&mut memory, "device_type", "memory");
            set(&mut memory, "reg", regions(description.memory.iter().map(|region| region.value)));
            self.tree.root.add_child(memory);
        }
    }

    fn cpu(&mut self, cpu: &CpuNode) -> Result<(), WriteError> {
        if cpu.id.as_str().strip_prefix("/cpus/").is_none_or(|name| name.contains('/')) {
            return Err(WriteErrorKind::NotInCpus.of(&cpu.id));
        }
        let node = self.node(&cpu.id)?;
        set(node, "device_type", "cpu");
        set(node, "compatible", "arm,armv8");
        set(node, "reg", cpu.affinity.mpidr());
        set_status(node, cpu.status.value);
        Ok(())
    }

    fn gic(&mut self, gic: &Gic) -> Result<(), WriteError> {
        let node = self.node(&gic.id)?;
        let frames =
            [&gic.distributor].into_iter().chain(&gic.redistributors).chain(&gic.cpu_interface);
        let frames = regions(frames.map(|region| region.value));
        set(node, "compatible", strings(&gic.compatible));
        if gic.version.value != GicVersion::V2 && gic.redistributors.len() != 1 {
            let count = u32::try_from(gic.redistributors.len()).unwrap_or(u32::MAX);
            set(node, "#redistributor-regions", count);
        }
        flag(node, "interrupt-controller");
        set(node, "#interrupt-cells", 3u32);
        set(node, "reg", frames);
        if let Some(stride) = &gic.redistributor_stride {
            set(node, "redistributor-stride", stride.value);
        }
        set_coherence(node, gic.coherence.value);
        if gic.broken_save_restore {
            flag(node, BROKEN_SAVE_RESTORE);
        }
        set_status(node, gic.status.value);
        Ok(())
    }

    /// Writes a secondary GIC. Its interrupt at another GIC is written as level-triggered and
    /// active high.
    fn secondary_gic(&mut self, secondary: &SecondaryGic) -> Result<(), WriteError> {
        let id = &secondary.gic.id;
        self.gic(&secondary.gic)?;
        let Some(parent) = &secondary.parent else { return Ok(()) };
        let inexpressible = || WriteErrorKind::Inexpressible.of(id);
        let place = self.gics.iter().position(|gic| **gic == parent.controller && *gic != id);
        let phandle = place.and_then(|place| self.gic_phandle(place)).ok_or_else(inexpressible)?;
        let specifier =
            parent.intid.and_then(interrupt_tree::specifier).ok_or_else(inexpressible)?;
        let [kind, number] = specifier;
        set(self.node(&parent.controller)?, "phandle", phandle);
        set(self.node(id)?, interrupt_tree::EXTENDED, [phandle, kind, number, LEVEL_HIGH]);
        Ok(())
    }

    /// Returns the phandle of a GIC. If the GIC is also an MSI controller, this is the controller's
    /// phandle. The phandles of other GICs follow those of the IOMMUs.
    fn gic_phandle(&self, place: usize) -> Option<u32> {
        let References { controllers, iommus, .. } = self.references;
        let facet = controllers.iter().position(|one| Some(&&one.id) == self.gics.get(place));
        let number = facet.unwrap_or(controllers.len() + iommus.len() + place);
        u32::try_from(number + 1).ok()
    }

    fn controller(&mut self, controller: &Controller, gic: Option<&Gic>) -> Result<(), WriteError> {
        let id = &controller.id;
        if controller.kind.is_in_bridge() {
            return self.lines(controller);
        }
        let node = self.node(id)?;
        flag(node, "msi-controller");
        // An absent `#msi-cells` means 0, but the Direct LPI binding requires the property.
        if controller.msi_cells.value != 0 || controller.kind == ControllerKind::DirectLpi {
            set(node, "#msi-cells", controller.msi_cells.value);
        }
        match &controller.kind {
            ControllerKind::Mbi | ControllerKind::DirectLpi => {
                let gic = gic
                    .filter(|gic| gic.id == *id)
                    .ok_or_else(|| WriteErrorKind::NotTheGic.of(id))?;
                set_gic_facet(node, controller, gic);
                return Ok(());
            }
            ControllerKind::Its => set(node, "compatible", "arm,gic-v3-its"),
            ControllerKind::V2m => set(node, "compatible", "arm,gic-v2m-frame"),
            ControllerKind::Other(compatible) => set(node, "compatible", compatible.as_str()),
            _ => set(node, "compatible", MIP),
        }
        if let Some(registers) = &controller.registers {
            set(node, "reg", regions([registers.value]));
        }
        if controller.kind == ControllerKind::Mip {
            return self.mip(controller);
        }
        if let Some(window) = &controller.pre_its {
            let cells = [window.base(), window.size()].map(|cell| u32::try_from(cell).ok());
            let [Some(base), Some(size)] = cells else {
                return Err(WriteErrorKind::Inexpressible.of(id));
            };
            set(node, PRE_ITS, [base, size]);
        }
        match controller.ranges.as_slice() {
            [] => {}
            [range] if controller.kind == ControllerKind::V2m => {
                set(node, "arm,msi-base-spi", range.first().get());
                set(node, "arm,msi-num-spis", range.count());
            }
            _ => return Err(WriteErrorKind::Inexpressible.of(id)),
        }
        set_coherence(node, controller.coherence.value);
        set_status(node, controller.status.value);
        Ok(())
    }

    fn host(&mut self, host: &PciHost) -> Result<(), WriteError> {
        let routing = self.references.routing(&host.id, &host.msi)?;
        let streams = self.references.streams(&host.id, &host.iommu)?;
        let controllers = self.references.controllers;
        let node = self.node(&host.id)?;
        set(node, "device_type", "pci");
        if !host.compatible.is_empty() {
            set(node, "compatible", strings(&host.compatible));
        }
        // PCI addresses have three cells, and sizes have two.
        set(node, "#address-cells", 3u32);
        set(node, "#size-cells", 2u32);
        if let Some(config) = &host.config {
            let is_ecam = host.compatible.iter().any(|name| ECAM_HOSTS.contains(&name.as_str()));
            if is_ecam != matches!(config.value, ConfigAccess::Ecam(_)) {
                return Err(WriteErrorKind::Inexpressible.of(&host.id));
            }
            let own = host.own_controller.and_then(|own| controllers.get(own.get()));
            let port_logic = own.filter(|own| own.kind == ControllerKind::ImsiRx);
            match port_logic.and_then(|own| own.registers.as_ref()) {
                Some(registers) => {
                    let mut all = vec![(PORT_LOGIC, registers.value), ("config", config.region())];
                    let gate = port_logic.and_then(|own| own.gate.as_ref()).map(|gate| gate.value);
                    all.extend(bridge_controllers::region(&host.compatible, gate));
                    set(node, "reg", regions(all.iter().map(|(_, region)| *region)));
                    let names: Vec<_> = all.iter().map(|(name, _)| String::from(*name)).collect();
                    set(node, REGION_NAMES, strings(&names));
                }
                None => set(node, "reg", regions([config.region()])),
            }
        }
        set(node, "bus-range", [u32::from(host.buses.first), u32::from(host.buses.last)]);
        if !host.windows.is_empty() {
            set(node, "ranges", windows::ranges(&host.windows));
        }
        if !host.dma_windows.is_empty() {
            set(node, "dma-ranges", windows::ranges(&host.dma_windows));
        }
        if let Some(segment) = &host.segment {
            set(node, "linux,pci-domain", segment.value);
        }
        set_streams(node, &host.iommu, streams);
        routing.set_on(node);
        set_status(node, host.status.value);
        host.bridges.iter().try_for_each(|bridge| self.bridge(&host.id, bridge))
    }

    /// Writes a bridge and the bridges above it. The nodes of the bridges above only state their
    /// device and function numbers.
    fn bridge(&mut self, host: &NodeId, bridge: &PciBridge) -> Result<(), WriteError> {
        let names = bridge.id.as_str().strip_prefix(host.as_str()).unwrap_or_default();
        if names.split('/').skip(1).count() != bridge.path.len() {
            return Err(WriteErrorKind::NotAPath.of(&bridge.id));
        }
        let mut id = String::from(host.as_str());
        for (name, function) in names.split('/').skip(1).zip(&bridge.path) {
            id.push('/');
            id.push_str(name);
            let node = self.node(&NodeId::new(&id))?;
            set(node, "device_type", "pci");
            set(node, "reg", [u32::from(*function) << 8, 0, 0, 0, 0]);
            set(node, "#address-cells", 3u32);
            set(node, "#size-cells", 2u32);
        }
        let routing = self.references.routing(&bridge.id, &bridge.msi)?;
        let node = self.node(&bridge.id)?;
        routing.set_on(node);
        set_status(node, bridge.status.value);
        Ok(())
    }

    fn device(&mut self, device: &PlatformDevice) -> Result<(), WriteError> {
        let routing = self.references.routing(&device.id, &device.msi)?;
        let passed = self.references.passed(device)?;
        let streams = self.references.streams(&device.id, &device.iommu)?;
        let node = self.node(&device.id)?;
        if !passed.is_empty() {
            set(node, iommu_map::REFERENCES, passed);
        }
        if !device.compatible.is_empty() {
            set(node, "compatible", strings(&device.compatible));
        }
        if !device.registers.is_empty() {
            set(node, "reg", regions(device.registers.iter().map(|region| region.value)));
        }
        set_streams(node, &device.iommu, streams);
        let says_so = (device.msi.map.is_some() && device.msi.parents.is_empty())
            || !device.iommu.map.is_empty()
            || device.compatible.iter().any(|name| BUSES.contains(&name.as_str()));
        match (device.role, says_so) {
            (Role::Bus, false) => flag(node, iommu_map::MAP),
            (Role::Device, true) => return Err(WriteErrorKind::Inexpressible.of(&device.id)),
            _ => {}
        }
        routing.set_on(node);
        set_status(node, device.status.value);
        Ok(())
    }

    /// Writes an IOMMU. The phandles of IOMMUs follow those of the controllers.
    fn iommu(&mut self, index: usize, iommu: &Iommu) -> Result<(), WriteError> {
        let phandle = self.references.iommu_phandle(&iommu.id, IommuIndex::new(index))?;
        let cells = self.references.cells_at(IommuIndex::new(index));
        let cells = u32::try_from(cells).unwrap_or(u32::MAX);
        let node = self.node(&iommu.id)?;
        if !iommu.compatible.is_empty() {
            set(node, "compatible", strings(&iommu.compatible));
        }
        if let Some(registers) = &iommu.registers {
            set(node, "reg", regions([registers.value]));
        }
        set(node, iommu_map::CELLS, cells);
        set(node, "phandle", phandle);
        set_status(node, iommu.status.value);
        Ok(())
    }

    /// Returns the node at this path, after creating it and its ancestors if necessary.
    fn node(&mut self, id: &NodeId) -> Result<&mut DeviceTreeNode, WriteError> {
        let names = id.as_str().strip_prefix('/').unwrap_or_default();
        let is_name =
            |name: &str| !name.is_empty() && name.len() <= MAX_NAME && !name.contains('\0');
        let fits = id.as_str().len() < MAX_PATH && names.split('/').count() < MAX_DEPTH;
        if !fits || !names.split('/').all(is_name) {
            return Err(WriteErrorKind::NotAPath.of(id));
        }
        let mut node = &mut self.tree.root;
        let mut path_is_cpus = true;
        for (depth, name) in names.split('/').enumerate() {
            if depth > 0 {
                if path_is_cpus { set_cpus(node) } else { set_bus(node) }
            }
            path_is_cpus = depth == 0 && name == "cpus";
            if node.child_mut(name).is_none() {
                node.add_child(DeviceTreeNode::new_unchecked(name));
            }
            node = node.child_mut(name).ok_or_else(|| WriteErrorKind::NotAPath.of(id))?;
        }
        Ok(node)
    }
}
