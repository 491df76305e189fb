//! Reads the sockets and clusters that contain the CPUs (Linux binding `cpu/cpu-topology.txt`).

use super::error::DtbError;
use super::tree::{NodeRef, Tree};
use crate::origin::NodeId;
use alloc::borrow::ToOwned;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

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
