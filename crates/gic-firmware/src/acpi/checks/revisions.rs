//! Checks the revisions of tables and nodes, which determine the fields that are read, and the
//! reserved memory ranges of the IORT, which devices access through an SMMU before an operating
//! system has mapped anything (DEN 0049E §3.1.1.5).

use super::Checks;
use crate::acpi::fields::{Field, INDEX_VALID, gicc, pmcg, rmr, root_complex, smmu_v3};
use crate::acpi::iort::{Iort, IortNode, NodeKind};
use crate::acpi::madt::{MadtStructure, of_kind};
use crate::acpi::mcfg::Mcfg;
use crate::acpi::names::node_name;
use crate::acpi::table::{Fields, Signature, Table, origin};
use crate::finding::Rule;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

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

impl Checks<'_, '_> {
    pub(super) fn revisions(&mut self) {
        self.revisions_of_tables();
        self.revision_of_madt();
        let table = self.tables.iort.map(|iort| Iort::table(iort).revision()).unwrap_or_default();
        for node in self.nodes {
            self.revision_of_node(*node, table);
        }
        self.limits();
    }

    fn revisions_of_tables(&mut self) {
        let madt = [(self.tables.madt.table(), 1, MADT)];
        let iort = self.tables.iort.map(|iort| (Iort::table(iort), 0, IORT));
        let mcfg = self.tables.mcfg.map(|mcfg| (Mcfg::table(mcfg), 1, MCFG));
        for (table, first, last) in madt.into_iter().chain(iort).chain(mcfg) {
            let revision = Table::revision(table);
            if !(first..=last).contains(&revision) {
                let message =
                    format!("the table has revision {revision}; {first} to {last} are known");
                let place = origin(table.signature(), 8, "revision");
                self.findings.add(Rule::UnknownRevision, place, message);
            }
        }
    }

    fn revision_of_madt(&mut self) {
        let revision = self.tables.madt.table().revision();
        let mut older =
            |first: u8, of: Option<MadtStructure<'_>>, item: &'static str, what: &str| {
                if let Some(structure) = of.filter(|_| revision < first) {
                    let message = format!(
                        "{what} exists since revision {first}, but the MADT has {revision}"
                    );
                    self.findings.add(Rule::OldRevision, structure.origin(item), message);
                }
            };
        let first_gic = self.madt.iter().copied().find(|structure| structure.is_gic());
        older(MADT_GIC, first_gic, "", "this structure of a GIC");
        let giccs = || of_kind(self.madt, gicc::KIND);
        let fields: [(Field, u8); 2] = [(gicc::SPE_GSIV, MADT_SPE), (gicc::TRBE_GSIV, MADT_TRBE)];
        for (field, first) in fields {
            let stated = giccs().find(|gicc| gicc.get::<u64>(field) != 0);
            older(first, stated, field.name, field.name);
        }
        let later = giccs().find(|gicc| gicc.is_online_capable());
        older(MADT_TRBE, later, "flags", "the flag of a CPU that comes online later");
    }

    fn revision_of_node(&mut self, node: IortNode<'_>, table: u8) {
        let name = node_name(node);
        let Some(layout) = node.layout() else {
            let kind = node.fields.u8(0).unwrap_or_default();
            let message = format!("nodes have types 0 to 7, not {kind}: nothing reads the node");
            return self.findings.add(Rule::UnknownRevision, node.origin("type"), message);
        };
        let (revision, newest) = (node.revision, layout.newest);
        if revision > newest {
            let message = format!("{name} has revision {revision}; 0 to {newest} are known");
            return self.findings.add(Rule::UnknownRevision, node.origin("revision"), message);
        }
        if let Some(reason) = too_old(node, table) {
            let message = format!("{name} {reason}");
            self.findings.add(Rule::OldRevision, node.origin("revision"), message);
        }
    }

    /// Reports root complexes that state a memory address size limit, although their revision has
    /// no such field. All of them result in one finding, because a generator repeats the mistake.
    fn limits(&mut self) {
        let limit = |node: &IortNode<'_>| {
            let is_old = node.kind == NodeKind::RootComplex && node.revision == 0;
            let bits = root_complex::ADDRESS_BITS.read(node.before_mappings());
            bits.filter(|bits| is_old && (1u8..64).contains(bits))
        };
        let mut limited = self.nodes.iter().filter_map(|node| Some((node, limit(node)?)));
        let Some((first, bits)) = limited.next() else { return };
        let others = match limited.count() {
            0 => String::new(),
            count => format!("; likewise {count} more"),
        };
        let message = format!(
            "{} limits addresses to {bits} bits, but revision 0 has no such field: the limit has \
             no effect{others}",
            node_name(*first)
        );
        self.findings.add(Rule::OldRevision, first.origin("revision"), message);
    }

    pub(super) fn memory_ranges(&mut self) {
        let mut all = Vec::new();
        for node in self.nodes.iter().filter(|node| node.kind == NodeKind::Rmr) {
            let mut report = |item, message: String| {
                self.findings.add(Rule::RmrRange, node.origin(item), message);
            };
            match ranges(*node) {
                Ok(ranges) => {
                    for (index, (base, length)) in ranges.into_iter().enumerate() {
                        match wrong(base, length) {
                            Some(reason) => {
                                report(COUNT, format!("memory range {index}, {reason}"));
                            }
                            None => all.push((base, length, node.offset)),
                        }
                    }
                }
                Err((item, message)) => report(item, message),
            }
            self.targets(*node);
        }
        self.overlaps(all);
    }

    /// Reports a node without mappings, and mappings whose target is not an SMMU.
    fn targets(&mut self, node: IortNode<'_>) {
        if node.mappings().next().is_none() {
            let message = "without an ID mapping, the memory is reserved for no StreamID";
            let place = node.origin("number of ID mappings");
            return self.findings.add(Rule::RmrTarget, place, message);
        }
        for mapping in node.mappings() {
            // `mappings` reports references that do not resolve, for all types of nodes.
            let target = self.by_offset.at(mapping.target);
            if let Some(target) = target.filter(|target| !target.kind.is_smmu()) {
                let message = format!(
                    "the mapping leads to {}, but StreamIDs are those of an SMMU",
                    node_name(target)
                );
                self.findings.add(Rule::RmrTarget, mapping.origin(), message);
            }
        }
    }

    /// Reports ranges of different nodes that overlap.
    fn overlaps(&mut self, mut all: Vec<(u64, u64, usize)>) {
        all.sort_unstable();
        let mut furthest: Option<(u64, u64, usize)> = None;
        for (base, length, offset) in all {
            if let Some((other, other_length, at)) = furthest
                && base - other < other_length
                && (base, length) != (other, other_length)
            {
                let message = format!(
                    "{length:#x} bytes at {base:#x} overlap {other_length:#x} bytes at {other:#x} \
                     of the RMR at {at:#x}"
                );
                self.findings.add(Rule::RmrRange, origin(Signature::IORT, offset, COUNT), message);
            }
            let ends_later = |(other, other_length, _): (u64, u64, usize)| {
                other.saturating_add(other_length) >= base.saturating_add(length)
            };
            if !furthest.is_some_and(ends_later) {
                furthest = Some((base, length, offset));
            }
        }
    }
}

/// Returns the reason why a node's revision, or that of its table, is too old for a field that the
/// node states.
fn too_old(node: IortNode<'_>, table: u8) -> Option<String> {
    let (bytes, revision) = (node.before_mappings(), node.revision);
    match node.kind {
        NodeKind::SmmuV3 if revision < 5 && smmu_v3::FLAGS.has(bytes, INDEX_VALID)? => {
            Some(format!(
                "has the flag of a valid DeviceID mapping index, which revision {revision} has not"
            ))
        }
        NodeKind::Pmcg if revision == 0 => {
            let page: u64 = pmcg::PAGE_1.read(bytes).filter(|&page| page != 0)?;
            Some(format!("has page 1 at {page:#x}, but revision 0 has no such field"))
        }
        NodeKind::Rmr if revision == 0 => {
            Some(String::from("has revision 0; reserved memory ranges start at revision 1"))
        }
        NodeKind::Rmr if table < IORT_RMR => Some(format!(
            "reserves memory, which the IORT does since revision {IORT_RMR}, but the table has \
             {table}: operating systems ignore it"
        )),
        _ => None,
    }
}

/// Bytes of a memory range descriptor: base, length and a reserved word.
const RANGE_BYTES: usize = 20;
/// Alignment of memory ranges.
const ALIGNMENT: u64 = 0x1_0000;

const COUNT: &str = rmr::RANGES.name;

/// Returns the base and the length of each range of the node, or the invalid field and the reason.
fn ranges(node: IortNode<'_>) -> Result<Vec<(u64, u64)>, (&'static str, String)> {
    let (count, from): (usize, usize) = (node.get(rmr::RANGES), node.get(rmr::FIRST_RANGE));
    if count == 0 {
        return Err((COUNT, String::from("the node reserves no memory range")));
    }
    if from < rmr::LAYOUT.first.into() {
        let message = format!("memory ranges cannot start at byte {from} of the node");
        return Err((rmr::FIRST_RANGE.name, message));
    }
    let length = count.saturating_mul(RANGE_BYTES);
    let end = from.saturating_add(length);
    let first_mapping = node.mappings().next().map(|mapping| mapping.offset - node.offset);
    let limit = first_mapping.filter(|&mapping| mapping >= from).unwrap_or(node.fields.0.len());
    if end > limit {
        let room = limit.saturating_sub(from) / RANGE_BYTES;
        return Err((COUNT, format!("{count} memory ranges, but the node has room for {room}")));
    }
    let array = node.fields.slice(from, length).unwrap_or_default();
    let range = |bytes| Some((Fields(bytes).u64(0)?, Fields(bytes).u64(8)?));
    Ok(array.chunks_exact(RANGE_BYTES).filter_map(range).collect())
}

/// Returns the reason why a range cannot be reserved, if any.
fn wrong(base: u64, length: u64) -> Option<String> {
    if length == 0 {
        return Some(format!("base {base:#x}, is empty"));
    }
    if !base.is_multiple_of(ALIGNMENT) || !length.is_multiple_of(ALIGNMENT) {
        return Some(format!(
            "base {base:#x}, length {length:#x}, is not aligned to 64 KiB: Linux reserves another \
             range"
        ));
    }
    let fits = base.checked_add(length - 1).is_some();
    (!fits).then(|| format!("base {base:#x}, length {length:#x}, reaches past the address space"))
}
