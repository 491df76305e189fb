//! Checks references between IORT nodes, and the interrupts of SMMUs and counter groups.

use super::gic::address;
use super::raw_tables::RawTables;
use crate::acpi::fields::{self, Field, INDEX_VALID, Layout, SMMU_V2_LISTS, pmcg, smmu_v3};
use crate::acpi::iort::{IdMapping, IortContents, IortNode, MAPPING_BYTES};
use crate::acpi::madt::{MadtContents, MadtStructure};
use crate::acpi::names::{NodesByOffset, node_name};
use crate::acpi::table::{Fields, Signature};
use crate::finding::Rule;
use crate::finding_list::FindingList;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

/// Flag of memory access properties: the path to memory is coherent.
const COHERENT_PATH: u64 = 1;
/// Longest segment of a path in the namespace.
const SEGMENT_CHARACTERS: usize = 4;

pub(super) fn check(
    madt: &[MadtStructure],
    nodes: &[IortNode<'_>],
    raw: RawTables<'_>,
    findings: &mut FindingList,
) {
    let itses: BTreeSet<u32> = madt
        .iter()
        .filter_map(|structure| match structure.contents {
            MadtContents::Its(its) => Some(its.id),
            _ => None,
        })
        .collect();
    let is_frame = |one: &MadtStructure| matches!(one.contents, MadtContents::MsiFrame(_));
    let has_frame = madt.iter().any(is_frame);
    let by_offset = NodesByOffset::new(nodes.iter().copied());
    let mut identifiers = BTreeMap::new();
    for node in nodes {
        layout(*node, raw.node(node), findings);
        unstated(*node, raw.node(node), findings);
        single(*node, findings);
        for (index, mapping) in node.mappings().enumerate() {
            target(*node, index, mapping, &by_offset, findings);
        }
        match node.contents {
            // Operating systems ignore the groups of a machine with MSI frames and no ITS.
            IortContents::ItsGroup(_) if itses.is_empty() && has_frame => {}
            IortContents::ItsGroup(group) => {
                if let Some(id) = group.ids().find(|id| !itses.contains(id)) {
                    let message = format!("the MADT has no GIC ITS with number {id}");
                    findings.add(Rule::UnknownIts, node.origin("number of ITSes"), message);
                }
            }
            IortContents::SmmuV2(smmu) => {
                base("SMMU", *node, smmu.base, findings);
                interrupt_lists(*node, raw.node(node), findings);
            }
            IortContents::SmmuV3(smmu) => {
                base("SMMU", *node, smmu.base, findings);
                smmu_interrupts(*node, raw.node(node), findings);
            }
            IortContents::Pmcg(_) => counters(*node, raw.node(node), &by_offset, findings),
            IortContents::NamedComponent(component) => {
                path(*node, component.path, findings);
                coherence(*node, raw.node(node), fields::named_component::MEMORY, findings);
            }
            IortContents::RootComplex(_) => {
                coherence(*node, raw.node(node), fields::root_complex::MEMORY, findings);
            }
            _ => {}
        }
        if node.identifier != 0
            && let Some(other) = identifiers.insert(node.identifier, node.offset)
        {
            let message = format!("the node at {other:#x} also has identifier {}", node.identifier);
            findings.add(Rule::DuplicateId, node.origin("identifier"), message);
        }
    }
}

fn base(name: &str, node: IortNode<'_>, base: u64, findings: &mut FindingList) {
    address(name, base, node.origin("base address"), findings);
}

/// Reports a node that ends before its fields do, and mappings that overlap the fields.
fn layout(node: IortNode<'_>, bytes: Fields<'_>, findings: &mut FindingList) {
    let kind = bytes.u8(0).unwrap_or_default();
    let Some(layout) = Layout::of(Signature::IORT, kind) else { return };
    let size = usize::from(layout.size(node.revision));
    if bytes.0.len() < size {
        let message = format!(
            "{} has {} bytes, but the fields of revision {} have {size}",
            node_name(node),
            bytes.0.len(),
            node.revision
        );
        findings.add(Rule::MalformedTable, node.origin("length"), message);
        return;
    }
    let first = node.mappings().next().map(|mapping| mapping.offset.saturating_sub(node.offset));
    if let Some(first) = first.filter(|&first| first < size) {
        let message = format!(
            "ID mappings from byte {first} of the node on overlap its fields, which have {size} \
             bytes"
        );
        findings.add(Rule::MalformedTable, node.origin("offset of ID mappings"), message);
    }
}

/// Reports a node that contains more mappings than it states. Room that is filled with zeros is
/// common: tables written in C have arrays of a fixed size.
fn unstated(node: IortNode<'_>, bytes: Fields<'_>, findings: &mut FindingList) {
    let is_last = matches!(
        node.contents,
        IortContents::RootComplex(_)
            | IortContents::NamedComponent(_)
            | IortContents::SmmuV3(_)
            | IortContents::Pmcg(_)
    );
    let stated = node.mappings().count();
    let at: Option<usize> =
        fields::node_head::FIRST_MAPPING.read(bytes).filter(|&at| is_last && at != 0);
    let end = at.and_then(|at| at.checked_add(stated * MAPPING_BYTES));
    let Some(rest) = end.and_then(|end| bytes.0.get(end..)) else {
        return;
    };
    let is_filled = rest.iter().any(|&byte| byte != 0);
    if is_filled && rest.len() >= MAPPING_BYTES && rest.len().is_multiple_of(MAPPING_BYTES) {
        let message = format!(
            "{} states {stated} ID mappings, but has {}",
            node_name(node),
            stated + rest.len() / MAPPING_BYTES
        );
        findings.add(Rule::MalformedTable, node.origin("number of ID mappings"), message);
    }
}

/// Reports lists of interrupts that reach past their SMMU's node.
fn interrupt_lists(node: IortNode<'_>, bytes: Fields<'_>, findings: &mut FindingList) {
    for (field, list) in SMMU_V2_LISTS {
        let word = |field: Field| field.read(bytes).unwrap_or(0u64);
        let (count, offset) = (word(field), word(list));
        let end = offset + 8 * count;
        if count > 0 && usize::try_from(end).is_ok_and(|end| end > bytes.0.len()) {
            let message = format!(
                "{count} interrupts from byte {offset} on reach past the {} bytes of {}",
                bytes.0.len(),
                node_name(node)
            );
            findings.add(Rule::MalformedTable, node.origin(field.name), message);
        }
    }
}

/// Reports a root complex's single mapping that states several IDs, because all functions use the
/// first of them.
fn single(node: IortNode<'_>, findings: &mut FindingList) {
    let IortContents::RootComplex(complex) = node.contents else { return };
    for mapping in node.mappings().filter(|mapping| mapping.is_single && mapping.id_count > 0) {
        let message = format!(
            "the flag gives all functions of segment {:#x} the ID {:#x}, but the mapping states \
             {:#x} IDs",
            complex.segment,
            mapping.output,
            u64::from(mapping.id_count) + 1
        );
        findings.add(Rule::SingleMapping, mapping.origin(), message);
    }
}

/// Checks the node that a mapping refers to.
fn target(
    node: IortNode<'_>,
    index: usize,
    mapping: IdMapping,
    nodes: &NodesByOffset<'_>,
    findings: &mut FindingList,
) {
    let name = node_name(node);
    let message = match nodes.at(mapping.target).map(|target| (target, target.contents)) {
        None => format!(
            "mapping {index} of {name} refers to offset {:#x}, where no node starts",
            mapping.target
        ),
        Some((target, IortContents::SmmuV2(_) | IortContents::SmmuV3(_)))
            if target.offset == node.offset =>
        {
            format!("mapping {index} of {name} refers to the node itself")
        }
        Some((
            _,
            IortContents::ItsGroup(_)
            | IortContents::SmmuV2(_)
            | IortContents::SmmuV3(_)
            | IortContents::Iwb
            | IortContents::DraftRedistributorGroup,
        )) => return,
        // `memory_ranges` reports the mappings of reserved memory.
        Some(_) if node.contents == IortContents::Rmr => return,
        Some((target, _)) => {
            format!("mapping {index} of {name} refers to {}, which takes no IDs", node_name(target))
        }
    };
    findings.add(Rule::IortReference, mapping.origin(), message);
}

/// Reports an SMMUv3 that cannot signal its events or its errors, and a DeviceID mapping index that
/// refers to no mapping.
fn smmu_interrupts(node: IortNode<'_>, bytes: Fields<'_>, findings: &mut FindingList) {
    if node.own_mapping().is_some() {
        return;
    }
    let is_absent = |field: &Field| field.read(bytes) == Some(0u32);
    let mute = [smmu_v3::EVENT_GSIV, smmu_v3::GERR_GSIV].into_iter().find(is_absent);
    let (name, mappings) = (node_name(node), node.mappings().count());
    let index: Option<u32> = smmu_v3::OWN_MAPPING.read(bytes);
    let is_stated = match node.revision {
        0 => false,
        1..=4 => mute.is_some(),
        _ => smmu_v3::FLAGS.has(bytes, INDEX_VALID).unwrap_or_default(),
    };
    let (field, message) = match (index.filter(|_| is_stated), mute) {
        (Some(index), _) => (
            smmu_v3::OWN_MAPPING,
            format!("mapping {index} is to translate the messages of {name}, which has {mappings}"),
        ),
        (None, Some(gsiv)) => (
            gsiv,
            match index.filter(|&index| index != 0 && node.revision == 0) {
                Some(index) => format!(
                    "{name} has no GSIV; its DeviceID mapping index {index} has no effect, as \
                     revision 0 has no such field"
                ),
                None => format!(
                    "{name} has neither a GSIV nor a mapping for messages: faults are not reported"
                ),
            },
        ),
        (None, None) => return,
    };
    findings.add(Rule::SmmuWithoutInterrupts, node.origin(field.name), message);
}

/// Checks the overflow interrupt of a counter group, and the node whose events it counts.
fn counters(
    node: IortNode<'_>,
    bytes: Fields<'_>,
    nodes: &NodesByOffset<'_>,
    findings: &mut FindingList,
) {
    let name = node_name(node);
    if pmcg::OVERFLOW_GSIV.read(bytes) == Some(0u32) && node.mappings().next().is_none() {
        let message = format!("{name} has neither a GSIV nor a mapping for a message");
        findings.add(Rule::SmmuWithoutInterrupts, node.origin(pmcg::OVERFLOW_GSIV.name), message);
    }
    let reference = pmcg::NODE_REFERENCE.read(bytes).filter(|&reference| reference != 0);
    let counted = reference.map(|reference| (reference, nodes.at(reference)));
    let message = match counted {
        Some((reference, None)) => {
            format!("{name} counts events of offset {reference:#x}, where no node starts")
        }
        Some((_, Some(other))) if !is_counted(other.contents) => {
            format!("{name} counts events of {}, which has none", node_name(other))
        }
        _ => return,
    };
    findings.add(Rule::IortReference, node.origin(pmcg::NODE_REFERENCE.name), message);
}

const fn is_counted(contents: IortContents<'_>) -> bool {
    matches!(
        contents,
        IortContents::SmmuV2(_)
            | IortContents::SmmuV3(_)
            | IortContents::RootComplex(_)
            | IortContents::NamedComponent(_)
    )
}

/// Reports contradictory memory access properties: coherent accesses without a coherent path to
/// memory (DEN 0049E table 14).
fn coherence(node: IortNode<'_>, bytes: Fields<'_>, memory: Field, findings: &mut FindingList) {
    let Some(properties) = memory.read::<u64>(bytes) else { return };
    let coherent = properties & 0xffff_ffff;
    let (rule, reason) = match (coherent, properties >> 56 & COHERENT_PATH) {
        (0, _) | (1, COHERENT_PATH) => return,
        (1, _) => (
            Rule::UnusedField,
            String::from("states cache coherent accesses (CCA 1) without a coherent path (CPM 0)"),
        ),
        _ => (
            Rule::MalformedProperty,
            format!("states cache coherency {coherent:#x}, which is neither 0 nor 1"),
        ),
    };
    let place = node.origin(memory.name);
    let message = format!("{} {reason}", node_name(node));
    findings.add(rule, place, message);
}

/// Reports a component whose path no object of the namespace can have.
fn path(node: IortNode<'_>, path: &str, findings: &mut FindingList) {
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
        findings.add(Rule::ComponentPath, node.origin("device object name"), message);
    }
}
