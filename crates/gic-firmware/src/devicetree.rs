//! Reads and writes flattened devicetrees (Devicetree Specification 0.4, format version 17).

mod blob;
mod bridge_controllers;
mod cpus;
mod excerpt;
mod gic;
mod interrupt_tree;
mod iommu_map;
mod msi_controllers;
mod overlay;
mod references;
mod requester_nodes;
mod tree;
mod windows;
mod wired;
#[cfg(feature = "write")]
mod writer;

pub use crate::excerpt::Excerpt;
pub use blob::{DtbError, DtbErrorKind, MAX_DEPTH, MAX_PATH};
pub use cpus::cpu_clusters;
pub use excerpt::excerpts;
pub use overlay::{OverlaidTree, OverlayError, OverlayErrorKind};
#[cfg(feature = "write")]
pub use writer::{WriteError, WriteErrorKind, with_node_paths, write, write_source};

use crate::controller::owns_el2;
use crate::description::Description;
use crate::finding::{Fact, FindingList, Rule};
use alloc::string::String;
use alloc::vec::Vec;
use gic::GicNodes;
use iommu_map::IommuList;
use msi_controllers::ControllerList;
use requester_nodes::Requesters;
use tree::{NodeRef, Tree};

/// Reads a flattened devicetree. Bytes that follow the devicetree are ignored.
///
/// Each defect within the tree becomes a [`Finding`](crate::Finding), and the description omits the
/// affected fact. Nodes unrelated to interrupts aren't checked, and neither is the way of messages
/// through `dma-ranges`, which [`parse_and_check`] checks. Time and memory are proportional to the
/// length of the input.
///
/// # Errors
///
/// Returns an error if the blob's header or structure is broken, so that no tree can be read.
///
/// # Example
///
/// ```
/// use gic_firmware::{Rule, devicetree};
///
/// let machine = devicetree::parse(include_bytes!("../tests/data/mistakes.dtb"))?;
/// for finding in &machine.findings {
///     println!("{finding}");
/// }
/// assert!(machine.findings.iter().any(|finding| finding.rule == Rule::MissingProperty));
/// # Ok::<(), devicetree::DtbError>(())
/// ```
pub fn parse(blob: &[u8]) -> Result<Description, DtbError> {
    Ok(read(&Tree::read(blob)?))
}

/// Reads a flattened devicetree like [`parse`], and also checks that messages pass the `dma-ranges`
/// on the way to their doorbells, which a kernel need not do.
///
/// # Errors
/// Returns the same errors as [`parse`].
pub fn parse_and_check(blob: &[u8]) -> Result<Description, DtbError> {
    let tree = Tree::read(blob)?;
    let mut description = read(&tree);
    let mut findings = FindingList::new(core::mem::take(&mut description.findings));
    windows::check(&tree, &description, &mut findings);
    description.findings = findings.into_list();
    Ok(description)
}

fn read(tree: &Tree<'_>) -> Description {
    let mut findings = FindingList::default();
    for node in tree.repeated_phandles() {
        let message = "an earlier node has the same phandle";
        findings.add(Rule::DuplicatePhandle, node.origin("phandle"), message);
    }
    let gics = GicNodes::find(tree, &mut findings);
    gic::check(tree, gics.root, &mut findings);
    let gic = gics.root.and_then(|node| gic::read(node, &mut findings));
    let hypervisor = below_root(tree, "hypervisor", "compatible");
    let psci = below_root(tree, "psci", "method");
    if owns_el2(hypervisor.as_ref(), psci.as_ref())
        && let Some(node) = gics.root
    {
        gic::check_maintenance(node, &mut findings);
    }
    let secondary_gics = gics.read_secondary(tree, &mut findings);
    let controllers = ControllerList::read(tree, &gics, &mut findings);
    let iommus = IommuList::read(tree);
    let mut requesters = Requesters::read(tree, &controllers, &iommus, &mut findings);
    interrupt_tree::read(tree, gics.root, &mut requesters.hosts);
    Description {
        model: model(tree),
        compatible: tree.nodes().next().map(NodeRef::compatible).unwrap_or_default(),
        oem_id: None,
        hypervisor,
        psci,
        cpus: cpus::read(tree, &mut findings),
        gic,
        secondary_gics,
        controllers: controllers.list,
        iommus: iommus.list,
        hosts: requesters.hosts,
        devices: requesters.devices,
        iommu_users: requesters.iommu_users,
        wired: gics.root.map_or_else(Vec::new, |gic| wired::read(tree, gic, &mut findings)),
        memory: cpus::memory(tree),
        findings: findings.into_list(),
    }
}

/// Returns a text of a node below the root; the empty text if the node lacks the property.
fn below_root(tree: &Tree<'_>, name: &str, property: &'static str) -> Option<Fact<String>> {
    let node = tree.nodes().find(|node| node.is_child_of_root() && node.name() == name)?;
    Some(Fact::new(String::from(node.text(property).unwrap_or_default()), node.origin(property)))
}

fn model(tree: &Tree<'_>) -> Option<Fact<String>> {
    let root = tree.nodes().next()?;
    ["model", "compatible"].into_iter().find_map(|property| {
        Some(Fact::new(String::from(root.text(property)?), root.origin(property)))
    })
}
