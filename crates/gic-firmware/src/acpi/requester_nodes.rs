//! Reads requesters: PCI segments from the MCFG and IORT, named components, SMMUs and PMCGs.

use super::fields::{pmcg, root_complex, smmu_v2, smmu_v3};
use super::id_map::{End, IdMaps, Span};
use super::iort::{IdMapping, IortNode, NodeKind};
use super::mcfg::{Allocation, Mcfg};
use super::msi_controllers::ControllerList;
use super::names::node_name;
use super::table::{Signature, in_madt, origin, sound};
use super::table_set::TableSet;
use crate::description::{
    BusRange, ConfigAccess, Iommu, IommuIndex, IommuReference, IommuRouting, MapEntry, MsiRouting,
    Parent, PciHost, PlatformDevice, Role, StreamEntry, Target,
};
use crate::finding::{Fact, FindingList, NodeId, Region, Rule, Status};
use crate::map_overlap::report_overlaps;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};
use msi_types::{DeviceId, RequesterId};

/// Devicetree compatible strings for devices that the IORT itself describes.
pub(super) const SMMU_V3: &str = "arm,smmu-v3";
pub(super) const PMCG: &str = "arm,smmu-v3-pmcg";

/// Size of register pages 0 and 1 of an SMMUv3 (IHI 0070 §6).
const SMMU_V3_BYTES: u64 = 0x2_0000;
/// Size of the smallest page of a counter group (IHI 0070 §10.4).
const PMCG_BYTES: u64 = 0x1000;

/// All nodes in the tables that may send MSIs.
#[derive(Default)]
pub(super) struct Requesters {
    pub(super) iommus: Vec<Iommu>,
    pub(super) hosts: Vec<PciHost>,
    pub(super) devices: Vec<PlatformDevice>,
    /// Devices behind an IOMMU that send no MSIs.
    pub(super) iommu_users: Vec<PlatformDevice>,
}

impl Requesters {
    pub(super) fn read(
        tables: &TableSet<'_>,
        nodes: &[IortNode<'_>],
        controllers: &ControllerList,
        findings: &mut FindingList,
    ) -> Self {
        let maps = IdMaps::read(nodes.iter().copied(), findings);
        let (iommus, by_offset) = iommus(nodes);
        let mut reader = Reader { maps, controllers, iommus: by_offset, findings };
        let complexes = reader.root_complexes(nodes);
        let mut hosts = Vec::new();
        let mut seen = BTreeSet::new();
        for allocation in tables.mcfg.into_iter().flat_map(Mcfg::allocations) {
            let Some(allocation) = sound(allocation, reader.findings) else { continue };
            if !allocation.is_used() {
                continue; // The checks report these.
            }
            let segment = u32::from(allocation.segment);
            seen.insert(segment);
            hosts.extend(reader.allocated(allocation, complexes.get(&segment).copied()));
        }
        let others = complexes.iter().filter(|(segment, _)| !seen.contains(segment));
        hosts.extend(others.map(|(segment, node)| reader.complex(*segment, *node)));
        let mut known = BTreeSet::new();
        let (mut devices, mut iommu_users) = (Vec::new(), Vec::new());
        for node in nodes {
            let Some(device) = reader.device(*node) else { continue };
            if device.msi.is_empty() {
                iommu_users.push(device);
            } else if known.insert(device.id.clone()) {
                devices.push(device);
            } else {
                let origin = node.origin("");
                reader.findings.add(
                    Rule::DuplicateId,
                    origin,
                    format!("{} already has a node", device.id),
                );
            }
        }
        Self { iommus, hosts, devices, iommu_users }
    }
}

/// Returns the SMMUs among `nodes`, and a map from node offset to index.
fn iommus(nodes: &[IortNode<'_>]) -> (Vec<Iommu>, BTreeMap<usize, IommuIndex>) {
    let (mut list, mut by_offset) = (Vec::new(), BTreeMap::new());
    for node in nodes {
        let (base, compatible, size) = match node.kind {
            NodeKind::SmmuV2 => {
                (node.get(smmu_v2::BASE), node.smmu_v2_compatible(), node.get(smmu_v2::SPAN))
            }
            NodeKind::SmmuV3 => (node.get(smmu_v3::BASE), SMMU_V3, SMMU_V3_BYTES),
            _ => continue,
        };
        let origin = |item| node.origin(item);
        by_offset.insert(node.offset, IommuIndex::new(list.len()));
        list.push(Iommu {
            id: NodeId::from(format!("IORT/{}", node_name(*node))),
            compatible: vec![String::from(compatible)],
            status: Fact::new(Status::Enabled, origin("")),
            registers: Region::new(base, size)
                .map(|region| Fact::new(region, origin("base address"))),
        });
    }
    (list, by_offset)
}

/// Returns the memory address size limit of `node`, if it is below 64 bits. Zero means "no limit",
/// because early revisions of the node lack the field.
fn address_bits(node: IortNode<'_>) -> Option<Fact<u8>> {
    let bits = node.address_bits();
    let place = node.origin("memory address size limit");
    (1..64).contains(&bits).then(|| Fact::new(bits, place))
}

struct Reader<'c, 'f> {
    maps: IdMaps,
    controllers: &'c ControllerList,
    /// IOMMUs, indexed by node offset.
    iommus: BTreeMap<usize, IommuIndex>,
    findings: &'f mut FindingList,
}

impl Reader<'_, '_> {
    /// Returns the root complex for each segment. If a segment has several root complexes, the
    /// first one is used, as in Linux.
    fn root_complexes<'a>(&mut self, nodes: &[IortNode<'a>]) -> BTreeMap<u32, IortNode<'a>> {
        let mut complexes = BTreeMap::new();
        for node in nodes {
            if node.kind != NodeKind::RootComplex {
                continue;
            }
            match complexes.entry(node.get(root_complex::SEGMENT)) {
                Entry::Vacant(entry) => _ = entry.insert(*node),
                Entry::Occupied(entry) => {
                    let message = format!("segment {:#x} already has a root complex", entry.key());
                    let place = node.origin("PCI segment number");
                    self.findings.add(Rule::DuplicateId, place, message);
                }
            }
        }
        complexes
    }

    /// Reads the host whose configuration space is at `allocation`.
    fn allocated(
        &mut self,
        allocation: Allocation,
        complex: Option<IortNode<'_>>,
    ) -> Option<PciHost> {
        let place = origin(Signature::MCFG, allocation.offset, "base address");
        let (first, last) = (allocation.first_bus, allocation.last_bus);
        let Some(count) = last.checked_sub(first).map(|more| u64::from(more) + 1) else {
            let message = format!("the last bus {last:#x} is below the first bus {first:#x}");
            self.findings.add(Rule::MalformedProperty, place, message);
            return None;
        };
        let base = allocation.base.checked_add(u64::from(first) << 20);
        let Some(ecam) = base.and_then(|base| Region::new(base, count << 20)) else {
            let message = format!(
                "{count} buses from {:#x} on reach past the address space",
                allocation.base
            );
            self.findings.add(Rule::MalformedProperty, place, message);
            return None;
        };
        let id = format!("MCFG/{:04x}:{first:02x}-{last:02x}", allocation.segment);
        let buses = origin(Signature::MCFG, allocation.offset, "bus numbers");
        let segment = origin(Signature::MCFG, allocation.offset, "PCI segment group number");
        Some(PciHost {
            config: Some(Fact::new(ConfigAccess::Ecam(ecam), place)),
            buses: Fact::new(BusRange { first, last }, buses),
            ..self.host(id, Fact::new(allocation.segment.into(), segment), complex)
        })
    }

    /// Reads a root complex whose configuration space is not in an MCFG.
    fn complex(&mut self, segment: u32, node: IortNode<'_>) -> PciHost {
        let number = Fact::new(segment, node.origin("PCI segment number"));
        self.host(format!("IORT/root-complex@{segment:04x}"), number, Some(node))
    }

    fn host(&mut self, id: String, segment: Fact<u32>, complex: Option<IortNode<'_>>) -> PciHost {
        let spans = complex.map_or_else(Vec::new, |node| self.spans(node));
        let status = Fact::new(Status::Enabled, segment.origin.clone());
        let mapped = self.routing(&spans);
        let msi = self.controllers.frame_for_all().map_or(mapped, |frame| {
            let parent = Parent { target: Target::Controller(frame), specifier: Vec::new() };
            let origin = in_madt(0, "GIC MSI frame");
            MsiRouting { parents: vec![Fact::new(parent, origin)], ..MsiRouting::default() }
        });
        PciHost {
            id: NodeId::from(id),
            compatible: Vec::new(),
            status,
            config: None,
            buses: Fact::new(BusRange::ALL, segment.origin.clone()),
            windows: Vec::new(),
            dma_windows: Vec::new(),
            segment: Some(segment),
            msi,
            own_controller: None,
            bridges: Vec::new(),
            iommu: complex.map_or_else(IommuRouting::default, |node| self.streams(node)),
            address_bits: complex.and_then(address_bits),
            intx: None,
        }
    }

    /// Returns the spans of requester IDs of `node`, each followed to the end of its path. A single
    /// mapping covers all IDs not covered by earlier mappings.
    fn spans(&mut self, node: IortNode<'_>) -> Vec<(IdMapping, Span)> {
        let mappings = self.maps.of(node.offset).iter();
        let (findings, mut spans) = (&mut *self.findings, Vec::new());
        for (index, mapping) in mappings.enumerate() {
            if mapping.is_single && index > 0 {
                let message = "a single mapping after ranges is not supported, and is ignored";
                findings.add(Rule::SingleMapping, mapping.origin(), message);
                break;
            }
            spans.extend(
                self.maps.follow(*mapping, findings).into_iter().map(|span| (*mapping, span)),
            );
            if mapping.is_single {
                break;
            }
        }
        spans
    }

    /// Returns the mappings of `node` whose targets are IOMMUs.
    fn streams(&self, node: IortNode<'_>) -> IommuRouting {
        let mappings = self.maps.of(node.offset).iter();
        let single = mappings.clone().next().filter(|mapping| mapping.is_single);
        let mappings = mappings.take(if single.is_some() { 1 } else { usize::MAX });
        let entries = mappings.filter_map(|mapping| {
            let offset = usize::try_from(mapping.target).ok()?;
            let iommu = Some(self.iommus.get(&offset).copied()?);
            let (input, more) =
                if mapping.is_single { (0, 0) } else { (mapping.input, mapping.id_count) };
            let entry = StreamEntry {
                rid_base: RequesterId::new(input),
                length: more.saturating_add(1),
                iommu,
                stream_id_base: Some(mapping.output),
            };
            Some(Fact::new(entry, mapping.origin()))
        });
        let map: Vec<_> = entries.collect();
        let mask = single.filter(|_| !map.is_empty());
        IommuRouting { mask: mask.map(|mapping| Fact::new(0, mapping.origin())), map }
    }

    fn routing(&mut self, spans: &[(IdMapping, Span)]) -> MsiRouting {
        let single = spans.first().filter(|(mapping, _)| mapping.is_single);
        let entries: Vec<_> = spans
            .iter()
            .map(|(mapping, span)| {
                let entry = MapEntry {
                    rid_base: RequesterId::new(span.requester),
                    length: span.more.saturating_add(1),
                    target: self.target(*span),
                    device_id_base: DeviceId::new(span.device),
                };
                Fact::new(entry, mapping.origin())
            })
            .collect();
        report_overlaps(&entries, self.findings);
        MsiRouting {
            mask: single.map(|(mapping, _)| Fact::new(0, mapping.origin())),
            map: (!entries.is_empty()).then_some(entries),
            parents: Vec::new(),
        }
    }

    fn target(&self, span: Span) -> Target {
        match span.end {
            // `checks` reports groups of unknown ITSes.
            End::Its(its) => {
                self.controllers.of_its(its).map_or(Target::Nowhere, Target::Controller)
            }
            End::Redistributors => {
                self.controllers.direct_lpi().map_or(Target::Nowhere, Target::Controller)
            }
            // A broken reference has already been reported.
            End::Nowhere => Target::Nowhere,
        }
    }

    /// Returns `node` as a device if it sends MSIs or is behind an SMMU.
    fn device(&mut self, node: IortNode<'_>) -> Option<PlatformDevice> {
        match node.kind {
            NodeKind::NamedComponent => self.component(node),
            NodeKind::SmmuV3 => {
                self.own_messages(node, SMMU_V3, (node.get(smmu_v3::BASE), SMMU_V3_BYTES))
            }
            NodeKind::Pmcg => self.own_messages(node, PMCG, (node.get(pmcg::PAGE_0), PMCG_BYTES)),
            _ => None,
        }
    }

    /// Reads a named component. A component with single mappings is a device. A component that only
    /// has ranges is a bus whose devices have requester IDs.
    fn component(&mut self, node: IortNode<'_>) -> Option<PlatformDevice> {
        let singles: Vec<_> = node.mappings().filter(|mapping| mapping.is_single).collect();
        let parents: Vec<_> = singles.iter().flat_map(|mapping| self.parents(*mapping)).collect();
        let (role, msi, iommu) = if singles.is_empty() {
            let spans = self.spans(node);
            (Role::Bus, self.routing(&spans), self.streams(node))
        } else {
            let msi = MsiRouting { parents, ..MsiRouting::default() };
            (Role::Device, msi, IommuRouting::default())
        };
        let iommus = if role == Role::Device { self.passed(node) } else { Vec::new() };
        let is_known = !msi.is_empty() || !iommus.is_empty() || !iommu.map.is_empty();
        is_known.then(|| PlatformDevice {
            id: NodeId::new(node.path()),
            compatible: Vec::new(),
            status: Fact::new(Status::Enabled, node.origin("")),
            registers: Vec::new(),
            role,
            msi,
            iommus,
            iommu,
            address_bits: address_bits(node),
        })
    }

    /// Reads an SMMU or a counter group that has a mapping for its own messages.
    fn own_messages(
        &mut self,
        node: IortNode<'_>,
        compatible: &str,
        (base, size): (u64, u64),
    ) -> Option<PlatformDevice> {
        let mapping = node.mappings().nth(node.own_mapping()?)?;
        if !mapping.is_single {
            let message = "the mapping for the node's own messages is not a single mapping";
            self.findings.add(Rule::SingleMapping, mapping.origin(), message);
            return None;
        }
        let parents = self.parents(mapping);
        let registers = Region::new(base, size);
        let place = node.origin("base address");
        (!parents.is_empty()).then(|| PlatformDevice {
            id: NodeId::from(format!("IORT/{}", node_name(node))),
            compatible: vec![String::from(compatible)],
            status: Fact::new(Status::Enabled, node.origin("")),
            registers: registers
                .into_iter()
                .map(|region| Fact::new(region, place.clone()))
                .collect(),
            role: Role::Device,
            msi: MsiRouting { parents, ..MsiRouting::default() },
            iommus: Vec::new(),
            iommu: IommuRouting::default(),
            address_bits: None,
        })
    }

    /// Returns the SMMUs that a component's mappings refer to, once for each StreamID.
    fn passed(&self, node: IortNode<'_>) -> Vec<Fact<IommuReference>> {
        let mut seen = BTreeSet::new();
        let passed = node.mappings().filter_map(|mapping| {
            let iommu = self.iommus.get(&usize::try_from(mapping.target).ok()?).copied()?;
            let reference = IommuReference { iommu, specifier: vec![mapping.output] };
            let is_new = seen.insert((iommu, mapping.output));
            is_new.then(|| Fact::new(reference, mapping.origin()))
        });
        passed.collect()
    }

    /// Returns the controllers at the ends of a single mapping's paths, with the DeviceID at each.
    fn parents(&mut self, mapping: IdMapping) -> Vec<Fact<Parent>> {
        let spans = self.maps.follow(mapping, self.findings);
        let parent = |span: Span| {
            let target = self.target(span);
            // If the controller has no DeviceIDs, references to it have no cells.
            let has_id = span.end != End::Redistributors;
            let specifier = has_id.then_some(span.device).into_iter().collect();
            Fact::new(Parent { target, specifier }, mapping.origin())
        };
        spans.into_iter().map(parent).collect()
    }
}
