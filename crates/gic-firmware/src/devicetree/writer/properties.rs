//! Encodes property values for the writer.

use crate::controller::{Coherence, Controller, ControllerKind};
use crate::devicetree::map_entries;
use crate::devicetree::msi_controllers::DIRECT_LPI;
use crate::gic::Gic;
use crate::region::Region;
use crate::status::Status;
use alloc::string::String;
use alloc::vec::Vec;
use dtoolkit::model::{DeviceTreeNode, DeviceTreeProperty};
use dtoolkit::{Node as _, Property as _, ToPropertyValue};

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
    if count > map_entries::MAX_CELLS || (count > 1 && length > 1) {
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
