//! Checks the revisions of tables and nodes, which determine the fields that are read.

use super::raw_tables::RawTables;
use crate::acpi::cpus::giccs;
use crate::acpi::fields::{Field, INDEX_VALID, Layout, gicc, pmcg, root_complex, smmu_v3};
use crate::acpi::iort::{Iort, IortContents, IortNode};
use crate::acpi::madt::{MadtContents, MadtStructure};
use crate::acpi::mcfg::Mcfg;
use crate::acpi::names::node_name;
use crate::acpi::places::{in_madt, origin};
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
            findings.add(Rule::OldRevision, in_madt(offset, item), message);
        }
    };
    let is_gic = |structure: &&MadtStructure| {
        !matches!(structure.contents, MadtContents::Other(_) | MadtContents::GicV5(_))
    };
    if let Some(structure) = madt.iter().find(is_gic) {
        older(MADT_GIC, structure.offset, "", "this structure of a GIC");
    }
    let fields: [(Field, u8); 2] = [(gicc::SPE_GSIV, MADT_SPE), (gicc::TRBE_GSIV, MADT_TRBE)];
    for (field, first) in fields {
        let stated = madt.iter().find(|structure| {
            matches!(structure.contents, MadtContents::Gicc(_))
                && field.read(raw.structure(structure)).is_some_and(|value: u64| value != 0)
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
    let Some(Layout { newest, .. }) = Layout::of(Signature::IORT, kind) else {
        let message = format!("nodes have types 0 to 7, not {kind}: nothing reads the node");
        return findings.add(Rule::UnknownRevision, node.origin("type"), message);
    };
    if node.revision > newest {
        let message = format!("{name} has revision {}; 0 to {newest} are known", node.revision);
        return findings.add(Rule::UnknownRevision, node.origin("revision"), message);
    }
    if let Some(reason) = too_old(node, bytes, table) {
        let message = format!("{name} {reason}");
        findings.add(Rule::OldRevision, node.origin("revision"), message);
    }
}

/// Reports root complexes that state a memory address size limit, although their revision has no
/// such field. All of them result in one finding, because a generator repeats the mistake.
fn limits(nodes: &[IortNode<'_>], raw: RawTables<'_>, findings: &mut FindingList) {
    let limit = |node: &IortNode<'_>| {
        let is_old = matches!(node.contents, IortContents::RootComplex(_)) && node.revision == 0;
        let bytes = node.before_mappings(raw.node(node));
        root_complex::ADDRESS_BITS.read(bytes).filter(|bits| is_old && (1u8..64).contains(bits))
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
    findings.add(Rule::OldRevision, first.origin("revision"), message);
}

/// Returns the reason why a node's revision, or that of its table, is too old for a field that the
/// node states.
fn too_old(node: IortNode<'_>, bytes: Fields<'_>, table: u8) -> Option<String> {
    let bytes = node.before_mappings(bytes);
    match node.contents {
        IortContents::SmmuV3(_)
            if node.revision < 5 && smmu_v3::FLAGS.has(bytes, INDEX_VALID)? =>
        {
            Some(format!(
                "has the flag of a valid DeviceID mapping index, which revision {} has not",
                node.revision
            ))
        }
        IortContents::Pmcg(_) if node.revision == 0 => {
            let page: u64 = pmcg::PAGE_1.read(bytes).filter(|&page| page != 0)?;
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
