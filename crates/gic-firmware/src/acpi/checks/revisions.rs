//! Checks the revisions of tables and nodes, which determine the fields that are read.

use super::raw_tables::RawTables;
use crate::acpi::cpus::giccs;
use crate::acpi::fields::{Field, SPE_GSIV, TRBE_GSIV, node_layout};
use crate::acpi::iort::{Iort, IortContents, IortNode};
use crate::acpi::madt::{MadtContents, MadtStructure};
use crate::acpi::mcfg::Mcfg;
use crate::acpi::names::node_name;
use crate::acpi::places::origin;
use crate::acpi::table::{Fields, Signature, Table};
use crate::acpi::table_set::TableSet;
use crate::finding::Rule;
use crate::finding_list::FindingList;
use alloc::format;
use alloc::string::String;

/// Highest known revisions: the MADT of ACPI 6.6, the IORT of DEN 0049E.f, the only MCFG.
const MADT: u8 = 7;
const IORT: u8 = 7;
const MCFG: u8 = 1;
/// First revisions of the MADT with GIC structures (ACPI 5.0), with the GSIV of SPE (6.3), and with
/// the GSIV of TRBE and online-capable CPUs (6.5).
const MADT_GIC: u8 = 3;
const MADT_SPE: u8 = 5;
const MADT_TRBE: u8 = 6;
/// First revision of the IORT with reserved memory ranges (DEN 0049E.a).
const IORT_RMR: u8 = 1;

pub(super) fn check(
    tables: &TableSet<'_>,
    madt: &[MadtStructure],
    nodes: &[IortNode<'_>],
    raw: RawTables<'_>,
    findings: &mut FindingList,
) {
    of_tables(tables, findings);
    let revision = tables.madt.table().revision();
    of_madt(revision, madt, raw, findings);
    let table = tables.iort.map(|iort| Iort::table(iort).revision());
    for node in nodes {
        of_node(*node, raw.node(node), table.unwrap_or_default(), findings);
    }
    limits(nodes, raw, findings);
}

fn of_tables(tables: &TableSet<'_>, findings: &mut FindingList) {
    let madt = [(tables.madt.table(), 1, MADT)];
    let iort = tables.iort.map(|iort| (Iort::table(iort), 0, IORT));
    let mcfg = tables.mcfg.map(|mcfg| (Mcfg::table(mcfg), 1, MCFG));
    for (table, first, last) in madt.into_iter().chain(iort).chain(mcfg) {
        let revision = Table::revision(table);
        if !(first..=last).contains(&revision) {
            let message = format!("the table has revision {revision}; {first} to {last} are known");
            let place = origin(table.signature(), 8, "revision");
            findings.add(Rule::UnknownRevision, place, message);
        }
    }
}

fn of_madt(revision: u8, madt: &[MadtStructure], raw: RawTables<'_>, findings: &mut FindingList) {
    let mut older = |first: u8, offset: usize, item: &'static str, what: &str| {
        if revision < first {
            let message =
                format!("{what} exists since revision {first}, but the MADT has {revision}");
            findings.add(Rule::OldRevision, origin(Signature::MADT, offset, item), message);
        }
    };
    let is_gic = |structure: &&MadtStructure| {
        !matches!(structure.contents, MadtContents::Other(_) | MadtContents::GicV5(_))
    };
    if let Some(structure) = madt.iter().find(is_gic) {
        older(MADT_GIC, structure.offset, "", "this structure of a GIC");
    }
    let fields: [(Field, u8); 2] = [(SPE_GSIV, MADT_SPE), (TRBE_GSIV, MADT_TRBE)];
    for (field, first) in fields {
        let stated = madt.iter().find(|structure| {
            matches!(structure.contents, MadtContents::Gicc(_))
                && field.read(raw.structure(structure)).is_some_and(|value| value != 0)
        });
        if let Some(structure) = stated {
            older(first, structure.offset, field.name, field.name);
        }
    }
    if let Some((offset, _)) = giccs(madt).find(|(_, gicc)| gicc.is_online_capable()) {
        older(MADT_TRBE, offset, "flags", "the flag of a CPU that comes online later");
    }
}

fn of_node(node: IortNode<'_>, bytes: Fields<'_>, table: u8, findings: &mut FindingList) {
    let kind = bytes.u8(0).unwrap_or_default();
    let name = node_name(node);
    let Some((_, newest)) = node_layout(kind, node.revision) else {
        let message = format!("nodes have types 0 to 7, not {kind}: nothing reads the node");
        let place = origin(Signature::IORT, node.offset, "type");
        return findings.add(Rule::UnknownRevision, place, message);
    };
    if node.revision > newest {
        let message = format!("{name} has revision {}; 0 to {newest} are known", node.revision);
        let place = origin(Signature::IORT, node.offset, "revision");
        return findings.add(Rule::UnknownRevision, place, message);
    }
    if let Some(reason) = too_old(node, bytes, table) {
        let message = format!("{name} {reason}");
        let place = origin(Signature::IORT, node.offset, "revision");
        findings.add(Rule::OldRevision, place, message);
    }
}

/// Reports root complexes that state a memory address size limit, although their revision has no
/// such field. All of them result in one finding, because a generator repeats the mistake.
fn limits(nodes: &[IortNode<'_>], raw: RawTables<'_>, findings: &mut FindingList) {
    let limit = |node: &IortNode<'_>| {
        let is_old = matches!(node.contents, IortContents::RootComplex(_)) && node.revision == 0;
        let bytes = before_mappings(*node, raw.node(node));
        bytes.u8(32).filter(|bits| is_old && (1..64).contains(bits))
    };
    let mut limited = nodes.iter().filter_map(|node| Some((node, limit(node)?)));
    let Some((first, bits)) = limited.next() else { return };
    let others = match limited.count() {
        0 => String::new(),
        count => format!("; likewise {count} more"),
    };
    let message = format!(
        "{} limits addresses to {bits} bits, but revision 0 has no such field: the limit has no \
         effect{others}",
        node_name(*first)
    );
    let place = origin(Signature::IORT, first.offset, "revision");
    findings.add(Rule::OldRevision, place, message);
}

/// Returns the fields of a node, without its mappings.
fn before_mappings<'a>(node: IortNode<'_>, bytes: Fields<'a>) -> Fields<'a> {
    let first = node.mappings().next().map(|mapping| mapping.offset.saturating_sub(node.offset));
    Fields(first.and_then(|first| bytes.0.get(..first)).unwrap_or(bytes.0))
}

/// Returns the reason why a node's revision, or that of its table, is too old for a field that the
/// node states.
fn too_old(node: IortNode<'_>, bytes: Fields<'_>, table: u8) -> Option<String> {
    let bytes = before_mappings(node, bytes);
    match node.contents {
        IortContents::SmmuV3(_) if node.revision < 5 && bytes.u32(24)? & (1 << 4) != 0 => {
            Some(format!(
                "has the flag of a valid DeviceID mapping index, which revision {} has not",
                node.revision
            ))
        }
        IortContents::Pmcg(_) if node.revision == 0 => {
            let page = bytes.u64(32).filter(|&page| page != 0)?;
            Some(format!("has page 1 at {page:#x}, but revision 0 has no such field"))
        }
        IortContents::Rmr if node.revision == 0 => {
            Some(String::from("has revision 0; reserved memory ranges start at revision 1"))
        }
        IortContents::Rmr if table < IORT_RMR => Some(format!(
            "reserves memory, which the IORT does since revision {IORT_RMR}, but the table has \
             {table}: operating systems ignore it"
        )),
        _ => None,
    }
}
