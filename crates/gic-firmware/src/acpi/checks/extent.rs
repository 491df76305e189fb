//! Checks the stated lengths of tables and their structures, and the number of IORT nodes.

use crate::acpi::fields::{gicc, iort_header, its, iwb, madt_size, node_head, node_start};
use crate::acpi::iort::{Iort, IortNode};
use crate::acpi::mcfg::Allocation;
use crate::acpi::names::node_name;
use crate::acpi::places::{in_madt, origin};
use crate::acpi::table::{Fields, Signature, Table};
use crate::acpi::table_set::TableSet;
use crate::finding::{FindingList, Rule};
use alloc::format;

/// Offset of the first structure of a MADT.
const FIRST_STRUCTURE: usize = 44;
/// Highest type of a structure that ACPI 6.7 defines.
const LAST_TYPE: u8 = 31;

/// Reports lengths and node counts that do not match the contents of a table.
pub(in crate::acpi) fn check_extent(tables: &TableSet<'_>, findings: &mut FindingList) {
    madt_length(tables.madt.table(), findings);
    swallowed(tables.madt.table().bytes(), findings);
    if let Some(iort) = tables.iort {
        node_count(iort, findings);
    }
    if let Some(mcfg) = tables.mcfg {
        mcfg_length(mcfg.table(), findings);
    }
}

/// Returns the end of a sequence of MADT structures; `None` if one of them has an unknown type or
/// is too short.
fn structures_end(bytes: &[u8]) -> Option<usize> {
    let mut at = FIRST_STRUCTURE;
    while at < bytes.len() {
        let (kind, length) = (*bytes.get(at)?, usize::from(*bytes.get(at + 1)?));
        let least = madt_size(kind).unwrap_or(8);
        if kind > LAST_TYPE || length < least {
            return None;
        }
        at += length;
    }
    Some(at)
}

/// Reports a MADT whose structures continue after its stated end.
fn madt_length(table: Table<'_>, findings: &mut FindingList) {
    let (stated, whole) = (table.bytes().len(), table.with_rest());
    let goes_on = whole.len() > stated && structures_end(whole) == Some(whole.len());
    if goes_on {
        let message = format!(
            "the header states {stated} bytes, but structures continue to byte {}: those after \
             the stated end are not read",
            whole.len()
        );
        findings.add(Rule::TableLength, in_madt(4, "length"), message);
    }
}

/// Reports an MCFG whose allocations continue after its stated end.
fn mcfg_length(table: Table<'_>, findings: &mut FindingList) {
    let (stated, whole) = (table.bytes().len(), table.with_rest());
    let more = whole.get(stated..).unwrap_or_default();
    // An allocation has an aligned address, ordered buses, and four reserved bytes at its end.
    let last = whole.len().checked_sub(16);
    let last = last.and_then(|at| Allocation::read(at, Fields(whole.get(at..)?)));
    let is_one = whole.ends_with(&[0; 4])
        && last.is_some_and(|last| {
            let is_address = last.base != 0 && last.base.is_multiple_of(1 << 20);
            is_address && last.first_bus <= last.last_bus
        });
    if !more.is_empty() && (whole.len() - FIRST_STRUCTURE).is_multiple_of(16) && is_one {
        let message = format!(
            "the header states {stated} bytes, but allocations continue to byte {}",
            whole.len()
        );
        findings.add(Rule::TableLength, origin(Signature::MCFG, 4, "length"), message);
    }
}

/// Reports GIC structures whose stated length includes the next structure.
fn swallowed(bytes: &[u8], findings: &mut FindingList) {
    let mut at = FIRST_STRUCTURE;
    while let (Some(&kind), Some(&length)) = (bytes.get(at), bytes.get(at + 1)) {
        let length = usize::from(length);
        if length < 2 {
            return;
        }
        if let Some(size) = madt_size(kind).filter(|&size| size < length) {
            let inner = bytes.get(at + size..at + length).unwrap_or_default();
            let is_structure =
                inner.first().is_some_and(|kind| (gicc::KIND..=its::KIND).contains(kind));
            if is_structure && inner.get(1).map(|&length| usize::from(length)) == Some(inner.len())
            {
                let message = format!(
                    "a structure of type {kind} has {size} bytes, but states {length}, which \
                     hides the structure at {:#x}",
                    at + size
                );
                findings.add(Rule::MalformedTable, in_madt(at, "length"), message);
            }
        }
        at += length;
    }
}

/// Reports a node count that differs from the number of nodes in the table, and an impossible
/// offset of the first node.
fn node_count(iort: Iort<'_>, findings: &mut FindingList) {
    let (table, stated) = (iort.table(), iort.stated_nodes());
    let field = iort_header::FIRST_NODE;
    let first: u32 = field.read(table.fields()).unwrap_or_default();
    if stated > 0 && first < 48 {
        let message = format!("the first node cannot be at {first:#x}, within the header");
        let place = origin(Signature::IORT, field.at, field.name);
        return findings.add(Rule::IortNodeCount, place, message);
    }
    let Some(found) = nodes_to_end(iort) else { return };
    let message = match found.unstated {
        Some(node) if stated < found.count => format!(
            "the header states {stated} nodes, but the table has {}: {} at {:#x} is not read",
            found.count,
            node_name(node),
            node.offset
        ),
        _ if stated > found.count => {
            format!("the header states {stated} nodes, but the table has {}", found.count)
        }
        _ => return shorter_table(table, findings),
    };
    let place = origin(Signature::IORT, iort_header::NODES.at, iort_header::NODES.name);
    findings.add(Rule::IortNodeCount, place, message);
}

/// Reports a node that follows the stated end of the table.
fn shorter_table(table: Table<'_>, findings: &mut FindingList) {
    let (stated, whole) = (table.bytes().len(), table.with_rest());
    let Some(rest) = whole.get(stated..).filter(|rest| rest.len() >= 16) else { return };
    let rest = Fields(rest);
    let is_node = rest.u8(0) <= Some(iwb::KIND)
        && node_start::LENGTH.read(rest) == Some(rest.0.len())
        && node_head::REVISION.read(rest) <= Some(5u8);
    if is_node {
        let message = format!("the header states {stated} bytes, but a node follows them");
        findings.add(Rule::TableLength, origin(Signature::IORT, 4, "length"), message);
    }
}

/// The nodes up to the end of the table, regardless of the stated number of nodes.
struct FoundNodes<'a> {
    count: u32,
    /// First node beyond the stated number.
    unstated: Option<IortNode<'a>>,
}

/// Counts the nodes up to the end of the table; `None` if the table does not end with a node.
fn nodes_to_end(iort: Iort<'_>) -> Option<FoundNodes<'_>> {
    let mut found = FoundNodes { count: 0, unstated: None };
    let end = iort.table().bytes().len();
    let mut last = iort_header::FIRST_NODE.read(iort.table().fields())?;
    if last == end {
        return Some(found);
    }
    for node in iort.nodes_to_end() {
        let node = node.ok()?;
        if found.count == iort.stated_nodes() {
            found.unstated = Some(node);
        }
        found.count += 1;
        last = node.offset + node.fields.0.len();
        if last == end {
            return Some(found);
        }
    }
    (last == end).then_some(found)
}
