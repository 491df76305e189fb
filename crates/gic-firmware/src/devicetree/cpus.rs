//! Reads CPUs and memory (Devicetree Specification §3.4, §3.8; binding `arm/cpus.yaml`).

use super::address::{bus_regions, regions_if_any};
use super::tree::{NodeRef, Tree};
use crate::description::CpuNode;
use crate::finding::{FindingList, Rule};
use crate::origin::Fact;
use crate::region::Region;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use gic_arch::Affinity;

/// Mask of the affinity fields Aff3 and Aff2–0 in `MPIDR_EL1`.
const AFFINITY_BITS: u128 = 0xff_00ff_ffff;

pub(super) fn read(tree: &Tree<'_>, findings: &mut FindingList) -> Vec<CpuNode> {
    let mut known = BTreeMap::new();
    let mut cpus = Vec::new();
    for node in tree.nodes().filter(|node| is_cpu(*node)) {
        let Some(affinity) = affinity(node, findings) else { continue };
        if let Some(earlier) = known.insert(affinity, node.index()) {
            known.insert(affinity, earlier);
            let message = format!("an earlier CPU also has affinity {affinity}");
            findings.add(Rule::DuplicateAffinity, node.origin("reg"), message);
            continue;
        }
        cpus.push(CpuNode {
            id: node.id(),
            affinity: Fact::new(affinity, node.origin("reg")),
            status: node.status(),
        });
    }
    cpus
}

fn is_cpu(node: NodeRef<'_, '_>) -> bool {
    let in_cpus =
        node.parent().is_some_and(|cpus| cpus.name() == "cpus" && cpus.is_child_of_root());
    in_cpus && (node.text("device_type") == Some("cpu") || node.name().starts_with("cpu@"))
}

fn affinity(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Affinity> {
    let message = match bus_regions(node) {
        Ok(entries) => match entries.first() {
            Some(&(mpidr, _)) if mpidr & !AFFINITY_BITS == 0 => {
                return u64::try_from(mpidr).ok().map(Affinity::from_mpidr);
            }
            Some((mpidr, _)) => format!("{mpidr:#x} is not an affinity of MPIDR_EL1"),
            None => {
                findings.add(
                    Rule::MissingProperty,
                    node.origin("reg"),
                    "the CPU's affinity is not stated",
                );
                return None;
            }
        },
        Err(message) => message,
    };
    findings.add(Rule::MalformedProperty, node.origin("reg"), message);
    None
}

/// Returns the RAM that the tree describes. On some boards, the boot loader adds the RAM to the
/// tree.
pub(super) fn memory(tree: &Tree<'_>) -> Vec<Fact<Region>> {
    tree.nodes()
        .filter(|node| node.text("device_type") == Some("memory") && node.status().is_enabled())
        .flat_map(regions_if_any)
        .filter(|region| region.size() > 0)
        .collect()
}
