//! Encodes property values: references to controllers and IOMMUs, maps to them, and simple values.

use crate::controller::{Coherence, Controller, ControllerKind, Gic};
use crate::description::{
    Description, Iommu, IommuIndex, IommuRouting, MapEntry, MsiRouting, Parent, PlatformDevice,
    Target,
};
use crate::devicetree::iommu_map;
use crate::devicetree::msi_controllers::DIRECT_LPI;
use crate::finding::{Fact, NodeId, Region, Status};
use alloc::string::String;
use alloc::vec::Vec;
use dtoolkit::model::{DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _, ToPropertyValue};

/// The nodes that a description's references lead to.
pub(super) struct References<'d> {
    pub(super) controllers: &'d [Controller],
    pub(super) iommus: &'d [Iommu],
    /// `#iommu-cells` of each IOMMU.
    iommu_cells: Vec<usize>,
}

/// Returns the `#iommu-cells` of each IOMMU: the length of the longest specifier in a reference to
/// the IOMMU, or 1 if no reference exists.
fn iommu_cells(description: &Description) -> Vec<usize> {
    let devices = || description.devices.iter().chain(&description.iommu_users);
    let named = devices().flat_map(|device| &device.iommus);
    let named = named.map(|reference| (reference.iommu, reference.specifier.len()));
    let hosts = description.hosts.iter().map(|host| &host.iommu);
    let maps = hosts.chain(devices().map(|device| &device.iommu));
    let entries = maps.flat_map(|routing| &routing.map);
    let mapped = entries
        .filter_map(|entry| Some((entry.iommu?, usize::from(entry.stream_id_base.is_some()))));
    let mut cells = alloc::vec![None; description.iommus.len()];
    for (iommu, count) in named.chain(mapped) {
        if let Some(known) = cells.get_mut(iommu.get()) {
            *known = (*known).max(Some(count));
        }
    }
    cells.into_iter().map(|count| count.unwrap_or(1)).collect()
}

impl<'d> References<'d> {
    pub(super) fn of(description: &'d Description) -> Self {
        Self {
            controllers: &description.controllers,
            iommus: &description.iommus,
            iommu_cells: iommu_cells(description),
        }
    }

    pub(super) fn iommu_phandle(&self, id: &NodeId, index: IommuIndex) -> Result<u32, WriteError> {
        let place = Some(index.get()).filter(|&place| place < self.iommus.len());
        let number = place.and_then(|place| u32::try_from(self.controllers.len() + place + 1).ok());
        number.ok_or_else(|| WriteErrorKind::Nowhere.of(id))
    }

    pub(super) fn cells_at(&self, iommu: IommuIndex) -> usize {
        self.iommu_cells.get(iommu.get()).copied().unwrap_or(1)
    }

    /// Returns the cells of references to IOMMUs, with each specifier padded with zeroes to the
    /// IOMMU's `#iommu-cells`.
    pub(super) fn passed(&self, device: &PlatformDevice) -> Result<Vec<u32>, WriteError> {
        let mut cells = Vec::new();
        for reference in &device.iommus {
            cells.push(self.iommu_phandle(&device.id, reference.iommu)?);
            let count = self.cells_at(reference.iommu);
            let filled = reference.specifier.iter().copied().chain(core::iter::repeat(0));
            cells.extend(filled.take(count));
        }
        Ok(cells)
    }

    pub(super) fn streams(
        &self,
        id: &NodeId,
        routing: &IommuRouting,
    ) -> Result<Vec<u32>, WriteError> {
        let mut words = Vec::new();
        for entry in &routing.map {
            let iommu = entry.iommu.ok_or_else(|| WriteErrorKind::Nowhere.of(id))?;
            let count = self.cells_at(iommu);
            if entry.stream_id_base.is_none() && count > 0 {
                return Err(WriteErrorKind::Specifier.of(id));
            }
            words.extend([entry.rid_base.get(), self.iommu_phandle(id, iommu)?]);
            let output = entry.stream_id_base.unwrap_or_default();
            map_output(&mut words, output, count, entry.length)
                .ok_or_else(|| WriteErrorKind::Inexpressible.of(id))?;
        }
        Ok(words)
    }

    pub(super) fn routing(&self, id: &NodeId, msi: &MsiRouting) -> Result<Routing, WriteError> {
        let map = msi.map.as_ref().map(|map| self.map(id, map)).transpose()?;
        let mut parents = Vec::new();
        for parent in &msi.parents {
            self.parent(id, parent, &mut parents)?;
        }
        Ok(Routing { mask: msi.mask.as_ref().map(|mask| mask.value), map, parents })
    }

    fn map(&self, id: &NodeId, map: &[Fact<MapEntry>]) -> Result<Vec<u32>, WriteError> {
        let mut words = Vec::new();
        for entry in map {
            let (phandle, controller) = self.reference(id, entry.target)?;
            // Without `#msi-cells`, a map entry has one cell for the DeviceID.
            let count = match controller.msi_cells.value {
                0 if controller.kind != ControllerKind::DirectLpi => 1,
                count => usize::try_from(count).unwrap_or(usize::MAX),
            };
            words.extend([entry.rid_base.get(), phandle]);
            map_output(&mut words, entry.device_id_base.get(), count, entry.length)
                .ok_or_else(|| WriteErrorKind::Inexpressible.of(id))?;
        }
        Ok(words)
    }

    fn parent(&self, id: &NodeId, parent: &Parent, cells: &mut Vec<u32>) -> Result<(), WriteError> {
        let (phandle, controller) = self.reference(id, parent.target)?;
        if usize::try_from(controller.msi_cells.value) != Ok(parent.specifier.len()) {
            return Err(WriteErrorKind::Specifier.of(id));
        }
        cells.push(phandle);
        cells.extend(&parent.specifier);
        Ok(())
    }

    /// Returns the phandle of `target`, and the controller. The phandles of controllers start at 1.
    fn reference(&self, id: &NodeId, target: Target) -> Result<(u32, &Controller), WriteError> {
        let nowhere = || WriteErrorKind::Nowhere.of(id);
        let Target::Controller(index) = target else { return Err(nowhere()) };
        let controller = self.controllers.get(index.get()).ok_or_else(nowhere)?;
        let phandle = u32::try_from(index.get() + 1).map_err(|_| nowhere())?;
        Ok((phandle, controller))
    }
}

/// A description that no devicetree can express. The caller is at fault.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[error("{id}: {kind}")]
pub struct WriteError {
    /// Node that cannot be expressed.
    pub id: NodeId,
    /// Reason.
    pub kind: WriteErrorKind,
}

/// Reason why a description cannot be written as a devicetree.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteErrorKind {
    /// The identifier is not an absolute node path, or is too deep or too long to be read back; or
    /// a bridge's identifier does not match its host's identifier and its path.
    #[error("the identifier is not a node path")]
    NotAPath,
    /// Two CPUs, controllers, hosts or devices share an identifier.
    #[error("the description contains this identifier twice")]
    Twice,
    /// A CPU's identifier is not a child of `/cpus`.
    #[error("a CPU must be a child of /cpus")]
    NotInCpus,
    /// The identifier of an MBI or Direct LPI controller differs from its GIC's.
    #[error("MBI and Direct LPI must have the GIC's own identifier")]
    NotTheGic,
    /// A reference does not resolve to a controller or IOMMU of the description.
    #[error("a reference does not resolve to a controller or IOMMU of the description")]
    Nowhere,
    /// A reference has a different number of cells than its target's `#msi-cells` or
    /// `#iommu-cells`.
    #[error("a reference does not have as many cells as its target asks for")]
    Specifier,
    /// A devicetree cannot express the value: a v2m frame can have only one range, the base and the
    /// size of a pre-ITS window must fit into 32 bits, a host with ECAM needs the compatible string
    /// of an ECAM host, and the parent of a secondary GIC must be a GIC.
    #[error("a devicetree cannot express this")]
    Inexpressible,
}

impl WriteErrorKind {
    pub(super) fn of(self, id: &NodeId) -> WriteError {
        WriteError { id: id.clone(), kind: self }
    }
}

/// A node's MSI routing, encoded in cells.
pub(super) struct Routing {
    pub(super) mask: Option<u32>,
    pub(super) map: Option<Vec<u32>>,
    pub(super) parents: Vec<u32>,
}

impl Routing {
    pub(super) fn set_on(&self, node: &mut DeviceTreeNode) {
        if let Some(mask) = self.mask {
            set(node, "msi-map-mask", mask);
        }
        if let Some(map) = &self.map {
            set(node, "msi-map", map.as_slice());
        }
        if !self.parents.is_empty() {
            set(node, "msi-parent", self.parents.as_slice());
        }
    }
}

/// Appends the end of a map entry: a specifier of `count` cells, all zero after the first, and the
/// number of IDs. Returns `None` if the entry has several cells and several IDs, or if it has more
/// cells than any binding allows.
pub(super) fn map_output(
    words: &mut Vec<u32>,
    output: u32,
    count: usize,
    length: u32,
) -> Option<()> {
    if count > iommu_map::MAX_CELLS || (count > 1 && length > 1) {
        return None;
    }
    words.extend(core::iter::once(output).chain(core::iter::repeat(0)).take(count));
    words.push(length);
    Some(())
}

pub(super) fn set_gic_facet(node: &mut DeviceTreeNode, controller: &Controller, gic: &Gic) {
    if controller.kind == ControllerKind::DirectLpi {
        flag(node, DIRECT_LPI);
        return;
    }
    let ranges = controller.ranges.iter().flat_map(|range| [range.first().get(), range.count()]);
    set(node, "mbi-ranges", ranges.collect::<Vec<u32>>());
    if let Some(alias) =
        controller.registers.as_ref().filter(|alias| alias.value != gic.distributor.value)
    {
        set(node, "mbi-alias", alias.base());
    }
}

/// Sets `#address-cells` and `#size-cells` of a node for 64-bit CPU addresses, unless the node
/// already has them.
pub(super) fn set_bus(node: &mut DeviceTreeNode) {
    if node.properties().any(|property| property.name() == "#address-cells") {
        return;
    }
    set(node, "#address-cells", 2u32);
    set(node, "#size-cells", 2u32);
    flag(node, "ranges");
}

pub(super) fn set_cpus(node: &mut DeviceTreeNode) {
    set(node, "#address-cells", 2u32);
    set(node, "#size-cells", 0u32);
}

pub(super) fn set_status(node: &mut DeviceTreeNode, status: Status) {
    if !status.is_enabled() {
        set(node, "status", "disabled");
    }
}

pub(super) fn set_coherence(node: &mut DeviceTreeNode, coherence: Coherence) {
    if coherence == Coherence::NonCoherent {
        flag(node, "dma-noncoherent");
    }
}

pub(super) fn set(node: &mut DeviceTreeNode, name: &str, value: impl ToPropertyValue) {
    node.add_property(DeviceTreeProperty::new_unchecked(name, value));
}

pub(super) fn regions(regions: impl IntoIterator<Item = Region>) -> Vec<u8> {
    let numbers = regions.into_iter().flat_map(|region| [region.base(), region.size()]);
    numbers.flat_map(u64::to_be_bytes).collect()
}

pub(super) fn strings(strings: &[String]) -> Vec<u8> {
    strings.iter().flat_map(|string| string.bytes().chain([0])).collect()
}

pub(super) fn flag(node: &mut DeviceTreeNode, name: &str) {
    set(node, name, Vec::<u8>::new());
}
