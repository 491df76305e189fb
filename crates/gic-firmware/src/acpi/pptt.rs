//! The PPTT groups CPUs into packages and clusters (ACPI 6.5 §5.2.30).

use super::places::madt_id;
use super::table::{Fields, Signature, Table, TableError};
use crate::origin::NodeId;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Offset of the first structure, after the header.
const FIRST_STRUCTURE: usize = 36;
/// Type of a processor hierarchy node, and its length without its private resources.
const HIERARCHY_NODE: u8 = 0;
const HIERARCHY_NODE_BYTES: usize = 20;
/// Flags of a processor hierarchy node.
const PACKAGE: u32 = 1 << 0;
const ID_VALID: u32 = 1 << 1;
const THREAD: u32 = 1 << 2;
const LEAF: u32 = 1 << 3;
/// Maximum number of levels above a CPU that are read. Longer paths, such as loops, end there.
const MAX_LEVELS: usize = 16;

/// A processor hierarchy node.
#[derive(Clone, Copy)]
struct Processor {
    flags: u32,
    /// Offset of the parent in the table; 0 if it has none.
    parent: u32,
    uid: u32,
    /// Position among the children of its parent that contain CPUs.
    number: u32,
}

impl Processor {
    const fn is(self, flag: u32) -> bool {
        self.flags & flag != 0
    }
}

/// Returns the packages and clusters that contain each CPU of a PPTT, outermost first. A name
/// consists of the kind and the position within the parent, e.g. `package 0` and `cluster 1`.
///
/// A CPU has the name of the GICC with the same UID in the MADT. Structures that are too short for
/// their fields are skipped; a structure without a valid length ends the table.
///
/// # Errors
///
/// Returns an error if `table` is not a PPTT.
pub fn cpu_clusters(table: Table<'_>) -> Result<BTreeMap<NodeId, Vec<String>>, TableError> {
    let nodes = processors(table.expect(Signature::PPTT)?);
    let cpus = nodes.values().filter(|node| node.is(LEAF) && node.is(ID_VALID));
    Ok(cpus.map(|cpu| (madt_id("GICC", cpu.uid), clusters(&nodes, *cpu))).collect())
}

/// Returns the hierarchy nodes by their offsets.
fn processors(table: Table<'_>) -> BTreeMap<u32, Processor> {
    let mut nodes = BTreeMap::new();
    let mut counts: BTreeMap<(u32, bool), u32> = BTreeMap::new();
    let mut at = FIRST_STRUCTURE;
    while let Some(rest) = table.bytes().get(at..)
        && let Some(length) = Fields(rest).u8(1).map(usize::from).filter(|&length| length >= 2)
    {
        let fields = Fields(rest.get(..length).unwrap_or_default());
        if fields.u8(0) == Some(HIERARCHY_NODE)
            && fields.slice(0, HIERARCHY_NODE_BYTES).is_some()
            && let (Some(flags), Some(parent), Some(uid)) =
                (fields.u32(4), fields.u32(8), fields.u32(12))
            && let Ok(offset) = u32::try_from(at)
        {
            let count = counts.entry((parent, flags & LEAF == 0)).or_default();
            nodes.insert(offset, Processor { flags, parent, uid, number: *count });
            *count += 1;
        }
        at += length;
    }
    nodes
}

/// Returns the packages and clusters above a CPU. The core above a thread is not a cluster.
fn clusters(nodes: &BTreeMap<u32, Processor>, cpu: Processor) -> Vec<String> {
    let above = core::iter::successors(nodes.get(&cpu.parent), |node| nodes.get(&node.parent));
    let skipped = usize::from(cpu.is(THREAD));
    let name = |node: &Processor| {
        let kind = if node.is(PACKAGE) { "package" } else { "cluster" };
        format!("{kind} {}", node.number)
    };
    let mut names: Vec<_> = above.take(MAX_LEVELS).skip(skipped).map(name).collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a table with these nodes, given as (flags, position of the parent, UID).
    fn table(nodes: &[(u32, Option<u32>, u32)]) -> Vec<u8> {
        let mut bytes = b"PPTT".to_vec();
        bytes.resize(FIRST_STRUCTURE, 0);
        for &(flags, parent, uid) in nodes {
            let parent = parent.map_or(0, |place| 36 + 20 * place);
            bytes.extend([HIERARCHY_NODE, 20, 0, 0]);
            for field in [flags, parent, uid, 0] {
                bytes.extend(field.to_le_bytes());
            }
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        let clusters = cpu_clusters(Table::new(bytes).unwrap()).unwrap();
        clusters.iter().map(|(cpu, path)| format!("{cpu}: {}", path.join(", "))).collect()
    }

    #[test]
    fn pptt_places_cpus_in_clusters_and_packages() {
        let core = ID_VALID | LEAF;
        let bytes = table(&[
            (PACKAGE, None, 0),
            (PACKAGE, None, 0),
            (0, Some(1), 0),
            (0, Some(1), 0),
            (core, Some(3), 7),
            (core, Some(0), 9),
        ]);
        let expected = ["MADT/GICC@7: package 1, cluster 1", "MADT/GICC@9: package 0"];
        assert_eq!(names(&bytes), expected);
    }

    #[test]
    fn a_core_with_threads_is_not_a_cluster() {
        let thread = ID_VALID | LEAF | THREAD;
        let bytes = table(&[(PACKAGE, None, 0), (0, Some(0), 0), (thread, Some(1), 3)]);
        assert_eq!(names(&bytes), ["MADT/GICC@3: package 0"]);
    }

    #[test]
    fn pptt_walk_terminates_on_loops_and_zero_length_structures() {
        let mut bytes = table(&[(0, Some(1), 0), (0, Some(0), 0), (LEAF | ID_VALID, Some(0), 1)]);
        assert_eq!(names(&bytes)[0].matches("cluster").count(), MAX_LEVELS);
        bytes[37] = 0;
        assert_eq!(names(&bytes), [""; 0]);
    }
}
