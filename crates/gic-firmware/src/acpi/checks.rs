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
mod revisions;
mod segments;
mod streams;
mod wires;

pub(super) use extent::check as check_extent;

use super::iort::{Iort, IortNode};
use super::madt::MadtStructure;
use super::table::Fields;
use super::table_set::TableSet;
use crate::finding_list::FindingList;

/// Checks tables whose structures and nodes have been read.
pub(super) fn check(
    tables: &TableSet<'_>,
    madt: &[MadtStructure],
    nodes: &[IortNode<'_>],
    findings: &mut FindingList,
) {
    let raw = RawTables {
        madt: tables.madt.table().bytes(),
        iort: tables.iort.map_or(&[][..], |iort| Iort::table(iort).bytes()),
    };
    revisions::check(tables, madt, nodes, raw, findings);
    gic::check(madt, raw, findings);
    cpus::check(madt, raw, findings);
    wires::check(madt, nodes, raw, findings);
    segments::check(tables, nodes, findings);
    mappings::check(madt, nodes, raw, findings);
    streams::check(tables, madt, nodes, findings);
    memory_ranges::check(nodes, raw, findings);
}

/// The bytes of a MADT and of an IORT, which is empty if it is absent.
#[derive(Clone, Copy)]
struct RawTables<'a> {
    madt: &'a [u8],
    iort: &'a [u8],
}

impl<'a> RawTables<'a> {
    /// Returns the fields of a MADT structure, up to its end.
    fn structure(self, at: &MadtStructure) -> Fields<'a> {
        let rest = self.madt.get(at.offset..).unwrap_or_default();
        let length = rest.get(1).map_or(0, |&length| usize::from(length));
        Fields(rest.get(..length).unwrap_or(rest))
    }

    /// Returns the fields of an IORT node, up to its end.
    fn node(self, node: &IortNode<'_>) -> Fields<'a> {
        let rest = Fields(self.iort.get(node.offset..).unwrap_or_default());
        let length = rest.u16(1).map_or(0, usize::from);
        Fields(rest.0.get(..length).unwrap_or(rest.0))
    }
}
