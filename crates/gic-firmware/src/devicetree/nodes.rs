//! Checks node statuses, and reports SMMUs without interrupts, ITSes without a GICv3 and unknown
//! GICs.

use super::gic;
use super::interrupt_tree::{CELLS, CONTROLLER, EXTENDED, INTERRUPTS};
use super::tree::{NodeRef, Tree};
use crate::controller::GicVersion;
use crate::finding::{FindingList, Rule};
use alloc::format;

/// Statuses of a node (Devicetree Specification §2.3.4), and `ok`, which Linux also accepts. A
/// status that starts with `fail` is valid as well, and states an error.
const STATUSES: &[&str] = &["okay", "ok", "disabled", "reserved"];

pub(super) fn check(tree: &Tree<'_>, gic: Option<NodeRef<'_, '_>>, findings: &mut FindingList) {
    for node in tree.nodes() {
        status(node, findings);
        if node.is_compatible(&["arm,smmu-v3"]) {
            silent(node, findings);
        }
    }
    match gic {
        None => unknown(tree, findings),
        Some(gic) if gic::version(gic) == Some(GicVersion::V2) => {
            let is_its = |node: &NodeRef<'_, '_>| {
                node.is_compatible(&["arm,gic-v3-its"]) && node.status().is_enabled()
            };
            let is_v3 = |node: NodeRef<'_, '_>| gic::version(node) == Some(GicVersion::V3);
            let its = tree.nodes().filter(is_its);
            for its in its.filter(|its| !its.upwards().any(is_v3)) {
                let message = format!("the GIC {} is a GICv2", gic.path());
                findings.add(Rule::MisplacedIts, its.origin("compatible"), message);
            }
        }
        Some(_) => {}
    }
}

/// Returns `true` if `node`, or a node above it, has an unknown status.
pub(super) fn has_unknown_status(node: NodeRef<'_, '_>) -> bool {
    node.upwards().any(|above| above.text("status").is_some_and(is_unknown))
}

fn is_unknown(status: &str) -> bool {
    !STATUSES.contains(&status) && !status.starts_with("fail")
}

fn status(node: NodeRef<'_, '_>, findings: &mut FindingList) {
    let Some(status) = node.text("status") else { return };
    if is_unknown(status) {
        let message = format!("{status:?} disables the node");
        findings.add(Rule::UnknownStatus, node.origin("status"), message);
    }
}

fn silent(smmu: NodeRef<'_, '_>, findings: &mut FindingList) {
    let signals = [INTERRUPTS, EXTENDED, "msi-parent", "msi-map"];
    if smmu.status().is_enabled() && !signals.into_iter().any(|property| smmu.has(property)) {
        let message = "the node has neither `interrupts` nor `msi-parent`";
        findings.add(Rule::SilentIommu, smmu.origin(INTERRUPTS), message);
    }
}

/// Reports a GICv5, whose nodes (binding `arm,gic-v5.yaml`) describe another architecture, or a
/// controller that seems to be a GIC, if the tree has no GIC that drivers recognize.
fn unknown(tree: &Tree<'_>, findings: &mut FindingList) {
    let is_v5 = |node: &NodeRef<'_, '_>| node.is_compatible(&["arm,gic-v5"]);
    if let Some(node) = tree.nodes().find(|node| is_v5(node) && node.status().is_enabled()) {
        let message = "the machine has a GICv5";
        return findings.add(Rule::OtherGicVersion, node.origin("compatible"), message);
    }
    let is_meant = |name: &str| name.contains("gic") && !name.contains("gic-v5");
    let meant = tree.nodes().filter(|node| node.has(CONTROLLER) && node.has(CELLS));
    for node in meant.filter(|node| node.status().is_enabled()) {
        let Some(name) = node.strings("compatible").find(|name| is_meant(name)) else { continue };
        let has_cells = node.number(CELLS).is_some_and(|cells| cells >= 3);
        if has_cells && name.starts_with("arm,") {
            let message = format!("no driver matches {name:?}");
            findings.add(Rule::UnknownGic, node.origin("compatible"), message);
            return;
        }
    }
}
