//! Checks the revisions of tables and nodes, which determine the fields that are read.

use super::Checks;
use crate::acpi::fields::{Field, INDEX_VALID, gicc, pmcg, root_complex, smmu_v3};
use crate::acpi::iort::{Iort, IortNode, NodeKind};
use crate::acpi::madt::{MadtStructure, of_kind};
use crate::acpi::mcfg::Mcfg;
use crate::acpi::names::node_name;
use crate::acpi::places::origin;
use crate::acpi::table::Table;
use crate::finding::Rule;
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
