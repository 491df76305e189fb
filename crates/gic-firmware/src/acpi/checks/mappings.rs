//! Checks references between IORT nodes, and the interrupts of SMMUs and counter groups.

use super::gic::address;
use super::raw_tables::RawTables;
use crate::acpi::fields::{EVENT_GSIV, GERR_GSIV, NODE_REFERENCE, OVERFLOW_GSIV, node_layout};
use crate::acpi::iort::{IdMapping, IortContents, IortNode, MAPPING_BYTES};
use crate::acpi::madt::{MadtContents, MadtStructure};
use crate::acpi::names::{NodesByOffset, node_name};
use crate::acpi::places::origin;
use crate::acpi::table::{Fields, Signature};
use crate::finding::Rule;
use crate::finding_list::FindingList;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

/// Flag of an SMMUv3 (revision 5): the DeviceID mapping index is valid.
const INDEX_VALID: u32 = 1 << 4;
/// Flag of memory access properties: the path to memory is coherent.
const COHERENT_PATH: u8 = 1;
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
                    let place = origin(Signature::IORT, node.offset, "number of ITSes");
                    findings.add(Rule::UnknownIts, place, message);
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
                coherence(*node, raw.node(node), 20, findings);
            }
            IortContents::RootComplex(_) => coherence(*node, raw.node(node), 16, findings),
            _ => {}
        }
        if node.identifier != 0
            && let Some(other) = identifiers.insert(node.identifier, node.offset)
        {
            let message = format!("the node at {other:#x} also has identifier {}", node.identifier);
            let place = origin(Signature::IORT, node.offset, "identifier");
            findings.add(Rule::DuplicateId, place, message);
        }
    }
}

fn base(name: &str, node: IortNode<'_>, base: u64, findings: &mut FindingList) {
    address(name, base, origin(Signature::IORT, node.offset, "base address"), findings);
}

/// Reports a node that ends before its fields do, and mappings that overlap the fields.
fn layout(node: IortNode<'_>, bytes: Fields<'_>, findings: &mut FindingList) {
    let kind = bytes.u8(0).unwrap_or_default();
    let Some((size, _)) = node_layout(kind, node.revision) else { return };
    if bytes.0.len() < size {
        let message = format!(
            "{} has {} bytes, but the fields of revision {} have {size}",
            node_name(node),
            bytes.0.len(),
            node.revision
        );
        let place = origin(Signature::IORT, node.offset, "length");
        findings.add(Rule::MalformedTable, place, message);
        return;
    }
    let first = node.mappings().next().map(|mapping| mapping.offset.saturating_sub(node.offset));
    if let Some(first) = first.filter(|&first| first < size) {
        let message = format!(
            "ID mappings from byte {first} of the node on overlap its fields, which have {size} \
             bytes"
        );
        let place = origin(Signature::IORT, node.offset, "offset of ID mappings");
        findings.add(Rule::MalformedTable, place, message);
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
    let (stated, at) = (node.mappings().count(), bytes.u32(12).unwrap_or_default());
    let end = usize::try_from(at).ok().and_then(|at| at.checked_add(stated * MAPPING_BYTES));
    let Some(rest) = end.and_then(|end| bytes.0.get(end..)).filter(|_| is_last && at != 0) else {
        return;
    };
    let is_filled = rest.iter().any(|&byte| byte != 0);
    if is_filled && rest.len() >= MAPPING_BYTES && rest.len().is_multiple_of(MAPPING_BYTES) {
        let message = format!(
            "{} states {stated} ID mappings, but has {}",
            node_name(node),
            stated + rest.len() / MAPPING_BYTES
        );
        let place = origin(Signature::IORT, node.offset, "number of ID mappings");
        findings.add(Rule::MalformedTable, place, message);
    }
}

/// Reports lists of interrupts that reach past their SMMU's node.
fn interrupt_lists(node: IortNode<'_>, bytes: Fields<'_>, findings: &mut FindingList) {
    for (item, at) in [("number of context interrupts", 44), ("number of PMU interrupts", 52)] {
        let count = bytes.u32(at).unwrap_or_default();
        let offset = bytes.u32(at + 4).unwrap_or_default();
        let end = u64::from(offset) + 8 * u64::from(count);
        if count > 0 && usize::try_from(end).is_ok_and(|end| end > bytes.0.len()) {
            let message = format!(
                "{count} interrupts from byte {offset} on reach past the {} bytes of {}",
                bytes.0.len(),
                node_name(node)
            );
            let place = origin(Signature::IORT, node.offset, item);
            findings.add(Rule::MalformedTable, place, message);
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
        let place = origin(Signature::IORT, mapping.offset, "ID mapping");
        findings.add(Rule::SingleMapping, place, message);
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
    let place = origin(Signature::IORT, mapping.offset, "ID mapping");
    findings.add(Rule::IortReference, place, message);
}

/// Reports an SMMUv3 that cannot signal its events or its errors, and a DeviceID mapping index that
/// refers to no mapping.
fn smmu_interrupts(node: IortNode<'_>, bytes: Fields<'_>, findings: &mut FindingList) {
    if node.own_mapping().is_some() {
        return;
    }
    let is_absent = |field: crate::acpi::fields::Field| field.read(bytes) == Some(0);
    let (name, mappings) = (node_name(node), node.mappings().count());
    let index = bytes.u32(64);
    let is_stated = match node.revision {
        0 => false,
        1..=4 => is_absent(EVENT_GSIV) || is_absent(GERR_GSIV),
        _ => bytes.u32(24).unwrap_or_default() & INDEX_VALID != 0,
    };
    let (item, message) = match index.filter(|_| is_stated) {
        Some(index) => (
            "DeviceID mapping index",
            format!("mapping {index} is to translate the messages of {name}, which has {mappings}"),
        ),
        None if is_absent(EVENT_GSIV) || is_absent(GERR_GSIV) => (
            if is_absent(EVENT_GSIV) { EVENT_GSIV.name } else { GERR_GSIV.name },
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
        None => return,
    };
    let place = origin(Signature::IORT, node.offset, item);
    findings.add(Rule::SmmuWithoutInterrupts, place, message);
}

/// Checks the overflow interrupt of a counter group, and the node whose events it counts.
fn counters(
    node: IortNode<'_>,
    bytes: Fields<'_>,
    nodes: &NodesByOffset<'_>,
    findings: &mut FindingList,
) {
    let name = node_name(node);
    if OVERFLOW_GSIV.read(bytes) == Some(0) && node.mappings().next().is_none() {
        let message = format!("{name} has neither a GSIV nor a mapping for a message");
        let place = origin(Signature::IORT, node.offset, OVERFLOW_GSIV.name);
        findings.add(Rule::SmmuWithoutInterrupts, place, message);
    }
    let reference = bytes.u32(28).filter(|&reference| reference != 0);
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
    let place = origin(Signature::IORT, node.offset, NODE_REFERENCE.name);
    findings.add(Rule::IortReference, place, message);
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

/// Reports contradictory memory access properties at byte `at`: coherent accesses without a
/// coherent path to memory (DEN 0049E table 14).
fn coherence(node: IortNode<'_>, bytes: Fields<'_>, at: usize, findings: &mut FindingList) {
    let (Some(coherent), Some(flags)) = (bytes.u32(at), bytes.u8(at + 7)) else { return };
    let (rule, reason) = match (coherent, flags & COHERENT_PATH) {
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
    let place = origin(Signature::IORT, node.offset, "memory access properties");
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
        let place = origin(Signature::IORT, node.offset, "device object name");
        findings.add(Rule::ComponentPath, place, message);
    }
}
