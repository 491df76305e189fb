//! Checks references between IORT nodes, and the interrupts of SMMUs and counter groups.

use super::Checks;
use crate::acpi::fields::{
    Field, INDEX_VALID, SMMU_V2_LISTS, its, msi_frame, named_component, node_head, pmcg,
    root_complex, smmu_v2, smmu_v3,
};
use crate::acpi::iort::{IdMapping, IortNode, MAPPING_BYTES, NodeKind};
use crate::acpi::madt::of_kind;
use crate::acpi::names::node_name;
use crate::finding::Rule;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

/// Flag of memory access properties: the path to memory is coherent.
const COHERENT_PATH: u64 = 1;
/// Longest segment of a path in the namespace.
const SEGMENT_CHARACTERS: usize = 4;

impl Checks<'_, '_> {
    pub(super) fn mappings(&mut self) {
        let itses = of_kind(self.madt, its::KIND).map(|one| one.get(its::ID)).collect();
        let mut identifiers = BTreeMap::new();
        for node in self.nodes {
            self.layout(*node);
            self.unstated(*node);
            self.single(*node);
            for (index, mapping) in node.mappings().enumerate() {
                self.target(*node, index, mapping);
            }
            match node.kind {
                NodeKind::ItsGroup => self.its_group(*node, &itses),
                NodeKind::SmmuV2 => {
                    self.address("SMMU", node.get(smmu_v2::BASE), node.origin("base address"));
                    self.interrupt_lists(*node);
                }
                NodeKind::SmmuV3 => {
                    self.address("SMMU", node.get(smmu_v3::BASE), node.origin("base address"));
                    self.smmu_interrupts(*node);
                }
                NodeKind::Pmcg => self.counters(*node),
                NodeKind::NamedComponent => {
                    self.path(*node);
                    self.coherence(*node, named_component::MEMORY);
                }
                NodeKind::RootComplex => self.coherence(*node, root_complex::MEMORY),
                _ => {}
            }
            let identifier: u32 = node.get(node_head::IDENTIFIER);
            if identifier != 0
                && let Some(other) = identifiers.insert(identifier, node.offset)
            {
                let message = format!("the node at {other:#x} also has identifier {identifier}");
                self.findings.add(Rule::DuplicateId, node.origin("identifier"), message);
            }
        }
    }

    /// Reports an ITS group with an ITS that the MADT does not have.
    fn its_group(&mut self, node: IortNode<'_>, itses: &BTreeSet<u32>) {
        // Operating systems ignore the groups of a machine with MSI frames and no ITS.
        if itses.is_empty() && of_kind(self.madt, msi_frame::KIND).next().is_some() {
            return;
        }
        if let Some(id) = node.its_ids().find(|id| !itses.contains(id)) {
            let message = format!("the MADT has no GIC ITS with number {id}");
            self.findings.add(Rule::UnknownIts, node.origin("number of ITSes"), message);
        }
    }

    /// Reports a node that ends before its fields do, and mappings that overlap the fields.
    fn layout(&mut self, node: IortNode<'_>) {
        let Some(layout) = node.layout() else { return };
        let (size, length) = (usize::from(layout.size(node.revision)), node.fields.0.len());
        if length < size {
            let message = format!(
                "{} has {length} bytes, but the fields of revision {} have {size}",
                node_name(node),
                node.revision
            );
            self.findings.add(Rule::MalformedTable, node.origin("length"), message);
            return;
        }
        let first = node.before_mappings().0.len();
        if first < size {
            let message = format!(
                "ID mappings from byte {first} of the node on overlap its fields, which have \
                 {size} bytes"
            );
            self.findings.add(Rule::MalformedTable, node.origin("offset of ID mappings"), message);
        }
    }

    /// Reports a node that contains more mappings than it states. Room that is filled with zeros is
    /// common: tables written in C have arrays of a fixed size.
    fn unstated(&mut self, node: IortNode<'_>) {
        let is_last = matches!(
            node.kind,
            NodeKind::RootComplex | NodeKind::NamedComponent | NodeKind::SmmuV3 | NodeKind::Pmcg
        );
        let stated = node.mappings().count();
        let at = Some(node.get::<usize>(node_head::FIRST_MAPPING)).filter(|&at| is_last && at != 0);
        let end = at.and_then(|at| at.checked_add(stated * MAPPING_BYTES));
        let Some(rest) = end.and_then(|end| node.fields.0.get(end..)) else { return };
        let is_filled = rest.iter().any(|&byte| byte != 0);
        if is_filled && rest.len() >= MAPPING_BYTES && rest.len().is_multiple_of(MAPPING_BYTES) {
            let message = format!(
                "{} states {stated} ID mappings, but has {}",
                node_name(node),
                stated + rest.len() / MAPPING_BYTES
            );
            self.findings.add(Rule::MalformedTable, node.origin("number of ID mappings"), message);
        }
    }

    /// Reports lists of interrupts that reach past their SMMU's node.
    fn interrupt_lists(&mut self, node: IortNode<'_>) {
        let length = node.fields.0.len();
        for (field, list) in SMMU_V2_LISTS {
            let (count, offset): (u64, u64) = (node.get(field), node.get(list));
            let end = offset + 8 * count;
            if count > 0 && usize::try_from(end).is_ok_and(|end| end > length) {
                let message = format!(
                    "{count} interrupts from byte {offset} on reach past the {length} bytes of {}",
                    node_name(node)
                );
                self.findings.add(Rule::MalformedTable, node.origin(field.name), message);
            }
        }
    }

    /// Reports a root complex's single mapping that states several IDs, because all functions use
    /// the first of them.
    fn single(&mut self, node: IortNode<'_>) {
        if node.kind != NodeKind::RootComplex {
            return;
        }
        for mapping in node.mappings().filter(|mapping| mapping.is_single && mapping.id_count > 0) {
            let message = format!(
                "the flag gives all functions of segment {:#x} the ID {:#x}, but the mapping \
                 states {:#x} IDs",
                node.get::<u32>(root_complex::SEGMENT),
                mapping.output,
                u64::from(mapping.id_count) + 1
            );
            self.findings.add(Rule::SingleMapping, mapping.origin(), message);
        }
    }

    /// Checks the node that a mapping refers to.
    fn target(&mut self, node: IortNode<'_>, index: usize, mapping: IdMapping) {
        let name = node_name(node);
        let message = match self.by_offset.at(mapping.target) {
            None => format!(
                "mapping {index} of {name} refers to offset {:#x}, where no node starts",
                mapping.target
            ),
            Some(target) if target.kind.is_smmu() && target.offset == node.offset => {
                format!("mapping {index} of {name} refers to the node itself")
            }
            Some(target) if target.kind.takes_ids() => return,
            // `memory_ranges` reports the mappings of reserved memory.
            Some(_) if node.kind == NodeKind::Rmr => return,
            Some(target) => {
                format!(
                    "mapping {index} of {name} refers to {}, which takes no IDs",
                    node_name(target)
                )
            }
        };
        self.findings.add(Rule::IortReference, mapping.origin(), message);
    }

    /// Reports an SMMUv3 that cannot signal its events or its errors, and a DeviceID mapping index
    /// that refers to no mapping.
    fn smmu_interrupts(&mut self, node: IortNode<'_>) {
        if node.own_mapping().is_some() {
            return;
        }
        let is_absent = |field: &Field| field.read(node.fields) == Some(0u32);
        let mute = [smmu_v3::EVENT_GSIV, smmu_v3::GERR_GSIV].into_iter().find(is_absent);
        let (name, mappings) = (node_name(node), node.mappings().count());
        let index: Option<u32> = smmu_v3::OWN_MAPPING.read(node.fields);
        let is_stated = match node.revision {
            0 => false,
            1..=4 => mute.is_some(),
            _ => smmu_v3::FLAGS.has(node.fields, INDEX_VALID).unwrap_or_default(),
        };
        let (field, message) = match (index.filter(|_| is_stated), mute) {
            (Some(index), _) => (
                smmu_v3::OWN_MAPPING,
                format!(
                    "mapping {index} is to translate the messages of {name}, which has {mappings}"
                ),
            ),
            (None, Some(gsiv)) => (
                gsiv,
                match index.filter(|&index| index != 0 && node.revision == 0) {
                    Some(index) => format!(
                        "{name} has no GSIV; its DeviceID mapping index {index} has no effect, as \
                         revision 0 has no such field"
                    ),
                    None => format!(
                        "{name} has neither a GSIV nor a mapping for messages: faults are not \
                         reported"
                    ),
                },
            ),
            (None, None) => return,
        };
        self.findings.add(Rule::SmmuWithoutInterrupts, node.origin(field.name), message);
    }

    /// Checks the overflow interrupt of a counter group, and the node whose events it counts.
    fn counters(&mut self, node: IortNode<'_>) {
        let name = node_name(node);
        if node.get::<u32>(pmcg::OVERFLOW_GSIV) == 0 && node.mappings().next().is_none() {
            let message = format!("{name} has neither a GSIV nor a mapping for a message");
            self.findings.add(
                Rule::SmmuWithoutInterrupts,
                node.origin(pmcg::OVERFLOW_GSIV.name),
                message,
            );
        }
        let reference: u32 = node.get(pmcg::NODE_REFERENCE);
        let message = match self.by_offset.at(reference) {
            _ if reference == 0 => return,
            None => format!("{name} counts events of offset {reference:#x}, where no node starts"),
            Some(other) if !other.kind.has_events() => {
                format!("{name} counts events of {}, which has none", node_name(other))
            }
            _ => return,
        };
        self.findings.add(Rule::IortReference, node.origin(pmcg::NODE_REFERENCE.name), message);
    }

    /// Reports contradictory memory access properties: coherent accesses without a coherent path to
    /// memory (DEN 0049E table 14).
    fn coherence(&mut self, node: IortNode<'_>, memory: Field) {
        let Some(properties) = memory.read::<u64>(node.fields) else { return };
        let coherent = properties & 0xffff_ffff;
        let (rule, reason) = match (coherent, properties >> 56 & COHERENT_PATH) {
            (0, _) | (1, COHERENT_PATH) => return,
            (1, _) => (
                Rule::UnusedField,
                String::from(
                    "states cache coherent accesses (CCA 1) without a coherent path (CPM 0)",
                ),
            ),
            _ => (
                Rule::MalformedProperty,
                format!("states cache coherency {coherent:#x}, which is neither 0 nor 1"),
            ),
        };
        let place = node.origin(memory.name);
        let message = format!("{} {reason}", node_name(node));
        self.findings.add(rule, place, message);
    }

    /// Reports a component whose path no object of the namespace can have.
    fn path(&mut self, node: IortNode<'_>) {
        let path = node.path();
        let is_segment = |segment: &str| {
            let is_character =
                |byte: u8| byte == b'_' || byte.is_ascii_uppercase() || byte.is_ascii_digit();
            (1..=SEGMENT_CHARACTERS).contains(&segment.len()) && segment.bytes().all(is_character)
        };
        let is_path = path.strip_prefix('\\').is_some_and(|path| path.split('.').all(is_segment));
        if !is_path {
            let message = format!(
                "{path:?} is no full path such as \\_SB.DEV0: no device of the namespace has it"
            );
            self.findings.add(Rule::ComponentPath, node.origin("device object name"), message);
        }
    }
}
