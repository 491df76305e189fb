//! Distinguishes the root GIC from secondary GICs (binding `arm,gic.yaml`).
//!
//! A GIC is cascaded to another GIC if it raises its interrupt at that GIC, directly or through
//! other controllers. The interrupt of the root GIC reaches no other GIC. The root GIC may be its
//! own parent, because many trees set one `interrupt-parent` for all nodes, including the root GIC.

use super::address::cells;
use super::gic;
use super::interrupt_tree::{self, CELLS, EXTENDED, INTERRUPTS, PARENT, cell_count};
use super::specifier;
use super::tree::{NodeRef, Tree};
use crate::finding::{FindingList, Rule};
use crate::gic::{ParentInterrupt, SecondaryGic};
use crate::origin::Fact;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

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
        let all: Vec<_> = tree.nodes().filter(|node| gic::version(*node).is_some()).collect();
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
        let gic = node.upwards().find(|above| gic::version(*above).is_some())?;
        self.root.is_none_or(|root| root.index() != gic.index()).then_some(gic)
    }

    pub(super) fn read_secondary(
        &self,
        tree: &'t Tree<'a>,
        findings: &mut FindingList,
    ) -> Vec<SecondaryGic> {
        let read = |node: &NodeRef<'t, 'a>| {
            let gic = gic::read(*node, findings)?;
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
    way.find(|at| gic::version(*at).is_some())
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
    let intid = match gic::version(parent) {
        None => None,
        Some(_) => {
            Some(specifier::interrupt(specifier).map_err(|message| fault(property, message))?)
        }
    };
    let parent = ParentInterrupt { controller: parent.id(), intid };
    Ok(Fact::new(parent, node.origin(property)))
}
