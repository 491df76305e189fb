//! Checks tables for mistakes that do not prevent reading them.
//!
//! | module | looks at |
//! |---|---|
//! | `wires` | lengths of tables and structures, number of IORT nodes; GSIVs in the MADT and the IORT |
//! | `revisions` | revisions of tables and nodes; reserved memory ranges of the IORT |
//! | `cpus` | the MADT |
//! | `mappings` | references between IORT nodes |
//! | `streams` | mappings of SMMUs, and the MCFG, compared with root complexes of the IORT |

mod cpus;
mod mappings;
mod revisions;
mod streams;
mod wires;

pub(super) use cpus::has_redistributors;
pub(super) use wires::check_extent;

use super::fields::gicd;
use super::iort::IortNode;
use super::madt::{MadtStructure, of_kind};
use super::names::NodesByOffset;
use super::table_set::TableSet;
use crate::finding::FindingList;

/// Tables whose structures and nodes have been read, and the findings about them.
struct Checks<'c, 'a> {
    tables: &'c TableSet<'a>,
    madt: &'c [MadtStructure<'a>],
    nodes: &'c [IortNode<'a>],
    by_offset: &'c NodesByOffset<'a>,
    findings: &'c mut FindingList,
}

/// Checks tables whose structures and nodes have been read. `is_bare` states whether the operating
/// system can use a GICv3's virtual interface.
pub(super) fn check(
    tables: &TableSet<'_>,
    madt: &[MadtStructure<'_>],
    nodes: &[IortNode<'_>],
    is_bare: bool,
    findings: &mut FindingList,
) {
    let by_offset = &NodesByOffset::new(nodes.iter().copied());
    let mut checks = Checks { tables, madt, nodes, by_offset, findings };
    checks.revisions();
    checks.gic();
    checks.cpus();
    if is_bare {
        checks.maintenance();
    }
    // GSIVs are INTIDs only if the machine has a GIC.
    if of_kind(madt, gicd::KIND).next().is_some() {
        checks.wires();
    }
    checks.segments();
    checks.mappings();
    checks.streams();
    checks.memory_ranges();
}
