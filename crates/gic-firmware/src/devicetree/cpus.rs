//! Reads CPUs and memory (Devicetree Specification §3.4, §3.8; binding `arm/cpus.yaml`), and the
//! sockets and clusters that contain the CPUs (Linux binding `cpu/cpu-topology.txt`).

use super::blob::DtbError;
use super::tree::{NodeRef, Tree, bus_regions, regions_if_any};
use crate::description::CpuNode;
use crate::finding::{Fact, FindingList, NodeId, Region, Rule};
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
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

/// Returns the sockets and clusters that contain each CPU of `/cpus/cpu-map`, outermost first. They
/// have the names of their nodes. The result is empty if the tree has no `cpu-map`.
///
/// # Errors
///
/// Returns an error if `input` is not a valid devicetree.
pub fn cpu_clusters(input: &[u8]) -> Result<BTreeMap<NodeId, Vec<String>>, DtbError> {
    let tree = Tree::read(input)?;
    let entries = tree.nodes().filter_map(|entry| {
        let cpu = tree.by_phandle(entry.number("cpu")?)?;
        Some((cpu.id(), clusters(entry)?))
    });
    Ok(entries.collect())
}

/// Returns the sockets and clusters above an entry, or `None` if it is not part of a `cpu-map`.
fn clusters(entry: NodeRef<'_, '_>) -> Option<Vec<String>> {
    let above = || core::iter::successors(entry.parent(), |node| node.parent());
    let map = above().position(|node| node.name() == "cpu-map")?;
    let is_in_cpus = |map: NodeRef<'_, '_>| {
        map.parent().is_some_and(|cpus| cpus.name() == "cpus" && cpus.is_child_of_root())
    };
    above().nth(map).filter(|map| is_in_cpus(*map))?;
    let mut names: Vec<String> = above()
        .take(map)
        .map(NodeRef::name)
        .filter(|name| name.starts_with("cluster") || name.starts_with("socket"))
        .map(str::to_owned)
        .collect();
    names.reverse();
    Some(names)
}
