//! Reads GIC nodes (bindings `arm,gic.yaml`, `arm,gic-v3.yaml`), and distinguishes the root GIC
//! from secondary GICs. Checks node statuses, and reports SMMUs without interrupts, ITSes without a
//! GICv3 and unknown GICs.
//!
//! A GIC is cascaded to another GIC if it raises its interrupt at that GIC, directly or through
//! other controllers. The interrupt of the root GIC reaches no other GIC. The root GIC may be its
//! own parent, because many trees set one `interrupt-parent` for all nodes, including the root GIC.

use super::interrupt_tree::{self, CELLS, CONTROLLER, EXTENDED, INTERRUPTS, PARENT, cell_count};
use super::tree::{NodeRef, Tree, cells, required_regions};
use crate::controller::{
    BROKEN_SAVE_RESTORE, Coherence, Gic, GicVersion, NO_MAINTENANCE, ParentInterrupt, SecondaryGic,
};
use crate::finding::{Fact, FindingList, Region, Rule};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Compatible strings for GICv3 and later.
const V3: &[&str] = &["arm,gic-v3"];

/// Compatible strings for GICv1 and GICv2.
const V2: &[&str] = &[
    "arm,arm11mp-gic",
    "arm,arm1176jzf-devchip-gic",
    "arm,cortex-a15-gic",
    "arm,cortex-a5-gic",
    "arm,cortex-a7-gic",
    "arm,cortex-a9-gic",
    "arm,eb11mp-gic",
    "arm,gic-400",
    "arm,pl390",
    "arm,tc11mp-gic",
    "brcm,brahma-b15-gic",
    "qcom,msm-8660-qgic",
    "qcom,msm-qgic2",
];

/// Size of a register frame. The distance between redistributors must be a multiple of this size.
const FRAME_BYTES: u64 = 0x1_0000;

/// Returns the version that a GIC node states; `None` for other nodes.
pub(super) fn version(node: NodeRef<'_, '_>) -> Option<GicVersion> {
    if node.is_compatible(V3) {
        Some(GicVersion::V3)
    } else if node.is_compatible(V2) {
        Some(GicVersion::V2)
    } else {
        None
    }
}

/// Reads the coherence of `node`'s table accesses with the CPUs' caches.
pub(super) fn coherence(node: NodeRef<'_, '_>) -> Fact<Coherence> {
    let coherence =
        if node.has("dma-noncoherent") { Coherence::NonCoherent } else { Coherence::ByRegister };
    Fact::new(coherence, node.origin("dma-noncoherent"))
}

pub(super) fn read(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Gic> {
    const MISSING: &str = "the distributor's registers are not stated";
    let version = version(node)?;
    let registers = required_regions(node, MISSING, findings);
    let distributor = registers.first().cloned().flatten()?;
    let after = registers.get(1..).unwrap_or_default();
    let count = match version {
        GicVersion::V2 => 0,
        _ => redistributor_regions(node, after.len(), findings),
    };
    Some(Gic {
        id: node.id(),
        compatible: node.compatible(),
        version: Fact::new(version, node.origin("compatible")),
        status: node.status(),
        distributor,
        redistributors: after.iter().take(count).flatten().cloned().collect(),
        redistributor_stride: stride(node, findings),
        cpu_interface: after
            .get(count)
            .cloned()
            .flatten()
            .filter(|region: &Fact<Region>| region.size() > 0),
        coherence: coherence(node),
        broken_save_restore: node.has(BROKEN_SAVE_RESTORE),
    })
}

/// Reports a GICv3 without a maintenance interrupt.
pub(super) fn check_maintenance(node: NodeRef<'_, '_>, findings: &mut FindingList) {
    let is_v3 = version(node) == Some(GicVersion::V3) && node.status().is_enabled();
    if is_v3 && !node.has(INTERRUPTS) && !node.has(EXTENDED) {
        let place = node.origin(INTERRUPTS);
        findings.add(Rule::MissingMaintenanceInterrupt, place, NO_MAINTENANCE);
    }
}

/// Returns how many of the `available` regions after the distributor's region contain
/// redistributors.
fn redistributor_regions(
    node: NodeRef<'_, '_>,
    available: usize,
    findings: &mut FindingList,
) -> usize {
    const COUNT: &str = "#redistributor-regions";
    let stated = match node.property(COUNT) {
        None => 1,
        Some(_) => node.number(COUNT).unwrap_or_default(),
    };
    let count = usize::try_from(stated).unwrap_or(usize::MAX);
    if count == 0 || count > available {
        let message =
            format!("{stated} redistributor regions, but {available} follow the distributor");
        findings.add(Rule::RedistributorRegions, node.origin(COUNT), message);
    }
    count.min(available)
}

fn stride(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Fact<u64>> {
    const STRIDE: &str = "redistributor-stride";
    let value = node.property(STRIDE)?;
    let Some(&[high, low]) = cells(value).as_deref() else {
        let message = format!("{} bytes are not a 64-bit number", value.len());
        findings.add(Rule::MalformedProperty, node.origin(STRIDE), message);
        return None;
    };
    let stride = (u64::from(high) << 32) | u64::from(low);
    if stride == 0 || stride % FRAME_BYTES != 0 {
        let message = format!("{stride:#x} bytes cannot be the distance between redistributors");
        findings.add(Rule::RedistributorStride, node.origin(STRIDE), message);
        return None;
    }
    Some(Fact::new(stride, node.origin(STRIDE)))
}

/// Maximum number of controllers between two GICs. Real machines have at most a few.
const MAX_STEPS: usize = 16;

/// The nodes of a tree's GICs.
pub(super) struct GicNodes<'t, 'a> {
    /// First usable GIC that is not cascaded, or else the first usable GIC, or else the first GIC.
    pub(super) root: Option<NodeRef<'t, 'a>>,
    /// All other GICs.
    secondary: Vec<NodeRef<'t, 'a>>,
}

impl<'t, 'a> GicNodes<'t, 'a> {
    pub(super) fn find(tree: &'t Tree<'a>, findings: &mut FindingList) -> Self {
        let all: Vec<_> = tree.nodes().filter(|node| version(*node).is_some()).collect();
        let usable = || all.iter().filter(|node| node.status().is_enabled());
        let cascaded = usable().find(|node| gic_above(tree, **node).is_none());
        if let (None, Some(first)) = (cascaded, usable().next())
            && let Some(above) = gic_above(tree, *first).filter(|above| above.status().is_enabled())
        {
            let message = format!("it is cascaded to {}, so that no GIC is the root", above.path());
            findings.add(Rule::CascadedGic, first.origin(PARENT), message);
        }
        let root = cascaded.or_else(|| usable().next()).or(all.first()).copied();
        let is_other =
            |node: &NodeRef<'_, '_>| root.is_some_and(|root| root.index() != node.index());
        Self { root, secondary: all.into_iter().filter(is_other).collect() }
    }

    /// Returns the secondary GIC that is `node` or one of its ancestors.
    pub(super) fn secondary_of(&self, node: NodeRef<'t, 'a>) -> Option<NodeRef<'t, 'a>> {
        let gic = node.upwards().find(|above| version(*above).is_some())?;
        self.root.is_none_or(|root| root.index() != gic.index()).then_some(gic)
    }

    pub(super) fn read_secondary(
        &self,
        tree: &'t Tree<'a>,
        findings: &mut FindingList,
    ) -> Vec<SecondaryGic> {
        let read = |node: &NodeRef<'t, 'a>| {
            let gic = read(*node, findings)?;
            let parent = match output(tree, *node) {
                Ok(parent) => Some(parent),
                Err(_) if !gic.status.is_enabled() => None,
                Err(fault) => {
                    findings.add(fault.rule, node.origin(fault.property), fault.message);
                    None
                }
            };
            Some(SecondaryGic { gic, parent })
        };
        self.secondary.iter().filter_map(read).collect()
    }
}

/// Returns the first other GIC on the path of the interrupts of `node`.
fn gic_above<'t, 'a>(tree: &'t Tree<'a>, node: NodeRef<'t, 'a>) -> Option<NodeRef<'t, 'a>> {
    let above = |at: &NodeRef<'t, 'a>| interrupt_parent(tree, *at);
    let way = core::iter::successors(above(&node), above).take(MAX_STEPS);
    let mut way = way.take_while(|at| at.index() != node.index());
    way.find(|at| version(*at).is_some())
}

fn interrupt_parent<'t, 'a>(tree: &'t Tree<'a>, node: NodeRef<'t, 'a>) -> Option<NodeRef<'t, 'a>> {
    match node.property(EXTENDED) {
        Some(value) => tree.by_phandle(u32::from_be_bytes(*value.first_chunk()?)),
        None => interrupt_tree::parent(tree, node),
    }
}

/// Reason why no controller receives the interrupts of a secondary GIC.
struct Fault {
    rule: Rule,
    property: &'static str,
    message: String,
}

/// Returns the parent interrupt of a secondary GIC.
fn output<'t, 'a>(
    tree: &'t Tree<'a>,
    node: NodeRef<'t, 'a>,
) -> Result<Fact<ParentInterrupt>, Fault> {
    let (property, reference, skipped) =
        if node.has(EXTENDED) { (EXTENDED, EXTENDED, 1) } else { (INTERRUPTS, PARENT, 0) };
    let fault = |property, message| Fault { rule: Rule::CascadedGic, property, message };
    let parent = match interrupt_parent(tree, node) {
        None if node.has(reference) => {
            return Err(fault(reference, String::from("it refers to no node")));
        }
        parent => parent.filter(|parent| parent.index() != node.index()),
    };
    let Some(parent) = parent else {
        let message = String::from("it is neither the root nor cascaded to another controller");
        return Err(Fault { rule: Rule::SeveralGics, property: "compatible", message });
    };
    let path = parent.path();
    if !parent.status().is_enabled() {
        return Err(fault(reference, format!("{path} is disabled")));
    }
    let Some(count) = cell_count(parent, CELLS) else {
        return Err(fault(reference, format!("{path} takes no interrupts")));
    };
    let stated = node.property(property).and_then(cells).unwrap_or_default();
    let specifier = stated.get(skipped..).unwrap_or_default();
    let Some(specifier) = specifier.get(..count).filter(|cells| !cells.is_empty()) else {
        return Err(fault(property, format!("it states no interrupt of {path}")));
    };
    let intid = match version(parent) {
        None => None,
        Some(_) => {
            Some(interrupt_tree::interrupt(specifier).map_err(|message| fault(property, message))?)
        }
    };
    let parent = ParentInterrupt { controller: parent.id(), intid };
    Ok(Fact::new(parent, node.origin(property)))
}

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
        Some(gic) if version(gic) == Some(GicVersion::V2) => {
            let is_its = |node: &NodeRef<'_, '_>| {
                node.is_compatible(&["arm,gic-v3-its"]) && node.status().is_enabled()
            };
            let is_v3 = |node: NodeRef<'_, '_>| version(node) == Some(GicVersion::V3);
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
