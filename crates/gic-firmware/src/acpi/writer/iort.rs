//! Encodes MSI routings as IORT nodes.

use super::numbering::{Segments, Structure, WriteError, WriteErrorKind, numbered};
use crate::acpi::fields::{
    its_group, named_component, node_head, node_start, pmcg, redistributor_group, root_complex,
    smmu_v3,
};
use crate::acpi::iort::{DRAFT_MARK, DRAFT_REVISION, MAPPING_BYTES, NODE_BYTES, SINGLE_MAPPING};
use crate::acpi::requester_nodes::{PMCG, SMMU_V3};
use crate::controller::{Controller, ControllerIndex, ControllerKind};
use crate::description::{Description, MapEntry, MsiRouting, PlatformDevice, Role, Target};
use crate::finding::NodeId;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Offset of the first node, after the table's header, the number of nodes, their offset and a
/// reserved field.
const FIRST_NODE: u32 = 48;
/// Number of requester IDs of a PCI segment, minus one.
const PCI_REQUESTERS: u32 = 0xffff;
/// Memory access properties of cacheable, coherent memory.
const MEMORY_PROPERTIES: u64 = 1 | (3 << 56);
const ADDRESS_BITS: u8 = 64;

/// Returns the nodes after the header; `None` if no node is needed.
pub(super) fn body(
    description: &Description,
    segments: &Segments<'_>,
) -> Result<Option<Vec<u8>>, WriteError> {
    let mut writer = Writer { description, groups: BTreeMap::new(), nodes: Vec::new(), count: 0 };
    for (place, _, id) in numbered(description, &ControllerKind::Its, "MADT/ITS@") {
        let group = writer.offset(&description.controllers)?;
        writer.groups.insert(place, group);
        let mut node = Structure::of(its_group::LAYOUT, 0).set(its_group::ITSES, 1u32);
        node.0.extend(id.to_le_bytes());
        writer.node(node, &[]);
    }
    if let Some(place) = direct_lpi(description) {
        let group = writer.offset(&description.controllers)?;
        writer.groups.insert(place, group);
        let mut node = Structure::of(redistributor_group::LAYOUT, DRAFT_REVISION);
        node.0.splice(NODE_BYTES..NODE_BYTES + DRAFT_MARK.len(), DRAFT_MARK);
        writer.node(node, &[]);
    }
    for (segment, host) in segments.complexes() {
        if let Some(bridge) = host.bridges.first() {
            return Err(WriteErrorKind::Route.of(&bridge.id));
        }
        let mappings = writer.mappings(&host.id, &host.msi)?;
        if !mappings.is_empty() {
            writer.root_complex(&host.id, segment, &mappings)?;
        }
    }
    let enabled = description.devices.iter().filter(|device| device.status.is_enabled());
    for (ordinal, device) in enabled.enumerate() {
        writer.device(ordinal, device)?;
    }
    let Writer { groups, nodes, count, .. } = writer;
    if groups.is_empty() && count == 0 {
        return Ok(None);
    }
    let mut body = Vec::new();
    body.extend(count.to_le_bytes());
    body.extend(FIRST_NODE.to_le_bytes());
    body.extend([0; 4]);
    body.extend(nodes);
    Ok(Some(body))
}

/// Fields of a mapping: first input ID, number of IDs minus one, first output ID, offset of the
/// target, flags.
type Mapping = [u32; 5];

struct Writer<'d> {
    description: &'d Description,
    /// Offset of each ITS group, by the index of its controller in the description.
    groups: BTreeMap<usize, u32>,
    nodes: Vec<u8>,
    count: u32,
}

impl Writer<'_> {
    /// Returns the offset of the next node in the table.
    fn offset(&self, of: &[Controller]) -> Result<u32, WriteError> {
        let offset =
            u32::try_from(self.nodes.len()).ok().and_then(|bytes| bytes.checked_add(FIRST_NODE));
        let id = of.first().map_or_else(|| NodeId::new("IORT"), |one| one.id.clone());
        offset.ok_or_else(|| WriteErrorKind::TooLong.of(&id))
    }

    fn root_complex(
        &mut self,
        id: &NodeId,
        segment: u32,
        mappings: &[Mapping],
    ) -> Result<(), WriteError> {
        let node = Structure::of(root_complex::LAYOUT, 1)
            .set(root_complex::MEMORY, MEMORY_PROPERTIES)
            .set(root_complex::SEGMENT, segment)
            .set(root_complex::ADDRESS_BITS, ADDRESS_BITS);
        self.checked_node(id, node, mappings)
    }

    fn device(&mut self, ordinal: usize, device: &PlatformDevice) -> Result<(), WriteError> {
        let mappings = match device.role {
            Role::Bus => self.mappings(&device.id, &device.msi)?,
            Role::Device => self.singles(device)?,
        };
        if mappings.is_empty() {
            return Ok(());
        }
        let id = &device.id;
        if let Some(base) = registers(device, SMMU_V3) {
            // The SMMU has no wired interrupts; it sends messages, which the first mapping
            // translates.
            let node = Structure::of(smmu_v3::LAYOUT, 1).set(smmu_v3::BASE, base);
            return self.checked_node(id, node, first(&mappings));
        }
        if let Some(base) = registers(device, PMCG) {
            let node = Structure::of(pmcg::LAYOUT, 1).set(pmcg::PAGE_0, base);
            return self.checked_node(id, node, first(&mappings));
        }
        let invented = || format!("\\_SB.D{ordinal:03X}");
        let path =
            if id.as_str().starts_with('\\') { String::from(id.as_str()) } else { invented() };
        let mut node = Structure::of(named_component::LAYOUT, 1)
            .set(named_component::MEMORY, MEMORY_PROPERTIES)
            .set(named_component::ADDRESS_BITS, ADDRESS_BITS);
        node.0.extend(path.bytes());
        // A zero byte terminates the name, and padding aligns the mappings.
        node.0.resize((node.0.len() + 1).next_multiple_of(4), 0);
        self.checked_node(id, node, &mappings)
    }

    fn checked_node(
        &mut self,
        id: &NodeId,
        node: Structure,
        mappings: &[Mapping],
    ) -> Result<(), WriteError> {
        let length = node.0.len() + mappings.len() * MAPPING_BYTES;
        if u16::try_from(length).is_err() {
            return Err(WriteErrorKind::TooLong.of(id));
        }
        self.node(node, mappings);
        Ok(())
    }

    /// Adds a node whose length the caller has checked, so that its lengths and counts fit their
    /// fields.
    fn node(&mut self, node: Structure, mappings: &[Mapping]) {
        let array = node.0.len();
        let field = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let node = node
            .set(node_start::LENGTH, field(array + mappings.len() * MAPPING_BYTES))
            .set(node_head::MAPPINGS, field(mappings.len()))
            .set(node_head::FIRST_MAPPING, if mappings.is_empty() { 0 } else { field(array) });
        self.nodes.extend(node.0);
        self.nodes.extend(mappings.iter().flatten().flat_map(|word| word.to_le_bytes()));
        self.count = self.count.saturating_add(1);
    }

    /// Returns the mappings of requesters behind a host or a bus.
    fn mappings(&self, id: &NodeId, msi: &MsiRouting) -> Result<Vec<Mapping>, WriteError> {
        let Some(map) = &msi.map else { return self.everything(id, msi) };
        if !msi.parents.iter().all(|parent| self.is_implied(parent.target)) {
            return Err(WriteErrorKind::Route.of(id));
        }
        let mask = msi.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
        let flags = match (mask, map.as_slice()) {
            (0, [entry]) if entry.rid_base.get() == 0 && entry.length != 0 => SINGLE_MAPPING,
            _ if mask & PCI_REQUESTERS == PCI_REQUESTERS => 0,
            _ => return Err(WriteErrorKind::Mask.of(id)),
        };
        let mut mappings: Vec<Mapping> = Vec::new();
        for entry in map {
            let Some(group) = self.group(id, entry.target)? else { continue };
            let Some(range) = range(entry.value, &mappings) else { continue };
            mappings.push([range.0, range.1, range.2, group, flags]);
        }
        Ok(mappings)
    }

    /// Returns a mapping from all requesters to the first enabled parent, for a node without a map.
    fn everything(&self, id: &NodeId, msi: &MsiRouting) -> Result<Vec<Mapping>, WriteError> {
        let enabled = msi.parents.iter().find(|parent| self.is_enabled(parent.target));
        let Some(parent) = enabled else { return Ok(Vec::new()) };
        if self.is_implied(parent.target) {
            return Ok(Vec::new());
        }
        let group = self.group(id, parent.target)?;
        Ok(group.map(|group| [0, PCI_REQUESTERS, 0, group, 0]).into_iter().collect())
    }

    /// Returns a single mapping for each DeviceID of a device.
    fn singles(&self, device: &PlatformDevice) -> Result<Vec<Mapping>, WriteError> {
        let mut mappings = Vec::new();
        for parent in &device.msi.parents {
            let Some(group) = self.group(&device.id, parent.target)? else { continue };
            let output = match parent.device_id() {
                Some(output) => output.get(),
                // A reference to redistributors carries no DeviceID.
                None if !self.needs_device_id(parent.target) => 0,
                None => return Err(WriteErrorKind::Route.of(&device.id)),
            };
            mappings.push([0, 0, output, group, SINGLE_MAPPING]);
        }
        Ok(mappings)
    }

    /// Returns the offset of the ITS group of the controller at `target`; `None` if the controller
    /// is disabled.
    fn group(&self, id: &NodeId, target: Target) -> Result<Option<u32>, WriteError> {
        let Target::Controller(index) = target else { return Ok(None) };
        match self.groups.get(&index.get()) {
            Some(group) => Ok(Some(*group)),
            None if !self.is_enabled(target) => Ok(None),
            None => Err(WriteErrorKind::Route.of(id)),
        }
    }

    fn needs_device_id(&self, target: Target) -> bool {
        let Target::Controller(index) = target else { return false };
        self.description.controller(index).is_some_and(|one| one.kind.needs_device_id())
    }

    fn is_enabled(&self, target: Target) -> bool {
        let Target::Controller(index) = target else { return false };
        self.description.controller(index).is_some_and(|controller| controller.status.is_enabled())
    }

    /// Returns `true` if `target` is the frame that serves all requesters of a machine without an
    /// IORT.
    fn is_implied(&self, target: Target) -> bool {
        let frames = numbered(self.description, &ControllerKind::V2m, "MADT/MSI-frame@");
        let first =
            frames.first().map(|(place, ..)| Target::Controller(ControllerIndex::new(*place)));
        self.groups.is_empty() && first == Some(target)
    }
}

/// Returns the register address of a device that has this compatible string, for which the IORT has
/// a separate node type.
fn registers(device: &PlatformDevice, compatible: &str) -> Option<u64> {
    let is_such =
        device.role == Role::Device && device.compatible.iter().any(|one| one == compatible);
    device.registers.first().filter(|_| is_such).map(|region| region.base())
}

/// Returns only the first mapping, because a node has a single mapping for its own messages.
fn first(mappings: &[Mapping]) -> &[Mapping] {
    mappings.get(..1).unwrap_or_default()
}

/// Returns the first input ID, the number of IDs minus one, and the first output ID of `entry`.
/// Omits the entry's first ID if it is also the last ID of an earlier range, because readers would
/// otherwise assign the ID to this entry.
fn range(entry: MapEntry, earlier: &[Mapping]) -> Option<(u32, u32, u32)> {
    let (input, output) = (entry.rid_base.get(), entry.device_id_base.get());
    let more = entry.length.checked_sub(1)?;
    let ends = |mapping: &Mapping| {
        let [first, more, ..] = *mapping;
        more > 0 && first.checked_add(more) == Some(input)
    };
    if earlier.iter().any(ends) {
        return Some((input.checked_add(1)?, more.checked_sub(1)?, output.checked_add(1)?));
    }
    Some((input, more, output))
}

/// Returns the index of the enabled direct LPI controller. If the caller did not request the draft
/// node, the MADT writer has already returned an error.
fn direct_lpi(description: &Description) -> Option<usize> {
    let is_enabled =
        |one: &Controller| one.kind == ControllerKind::DirectLpi && one.status.is_enabled();
    description.controllers.iter().position(is_enabled)
}
