//! Checks tables for mistakes that do not prevent reading them.
//!
//! | module | looks at |
//! |---|---|
//! | `extent` | lengths of tables and structures, number of IORT nodes |
//! | `revisions` | revisions of tables and nodes |
//! | `cpus`, `gic` | the MADT |
//! | `wires` | GSIVs in the MADT and the IORT |
//! | `segments` | the MCFG, compared with the root complexes of the IORT |
//! | `mappings` | references between IORT nodes |
//! | `streams` | mappings of SMMUs, compared with those of root complexes |
//! | `memory_ranges` | reserved memory ranges of the IORT |

mod cpus;
mod extent;
mod gic;
mod mappings;
mod memory_ranges;
mod raw_tables;
mod revisions;
mod segments;
mod streams;
mod wires;

use super::iort::{Iort, IortNode};
use super::madt::MadtStructure;
use super::table_set::TableSet;
use crate::finding_list::FindingList;
use raw_tables::RawTables;

/// Checks the stated lengths of tables and their structures.
pub(super) fn check_extent(tables: &TableSet<'_>, findings: &mut FindingList) {
    extent::check(tables, findings);
}

/// Checks tables whose structures and nodes have been read. `is_bare` states whether the operating
/// system can use a GICv3's virtual interface.
pub(super) fn check(
    tables: &TableSet<'_>,
    madt: &[MadtStructure],
    nodes: &[IortNode<'_>],
    is_bare: bool,
    findings: &mut FindingList,
) {
    let raw = RawTables {
        madt: tables.madt.table().bytes(),
        iort: tables.iort.map_or(&[][..], |iort| Iort::table(iort).bytes()),
    };
    revisions::check(tables, madt, nodes, raw, findings);
    gic::check(madt, raw, findings);
    cpus::check(madt, raw, findings);
    if is_bare {
        cpus::maintenance(madt, raw, findings);
    }
    // GSIVs are INTIDs only if the machine has a GIC.
    if madt.iter().any(gic::is_gicd) {
        wires::check(madt, nodes, raw, findings);
    }
    segments::check(tables, nodes, findings);
    mappings::check(madt, nodes, raw, findings);
    streams::check(tables, madt, nodes, findings);
    memory_ranges::check(nodes, raw, findings);
}
