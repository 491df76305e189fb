//! The GICs of a tree: the root, and those beside it (binding `arm,gic.yaml`).
//!
//! A GIC whose interrupt leads to another GIC is cascaded to it, directly or through controllers
//! between them. The root's way leads nowhere, or back to itself: trees give all nodes one
//! `interrupt-parent`, the root GIC among them.

use super::address::cells;
use super::gic;
use super::tree::{NodeRef, Tree};
use super::wired::{self, CELLS, EXTENDED, INTERRUPTS, PARENT, cell_count};
use crate::finding::Rule;
use crate::finding_list::FindingList;
use crate::gic::{ParentInterrupt, SecondaryGic};
use crate::origin::Fact;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Controllers between two GICs. No real machine has more than a few.
const MAX_STEPS: usize = 16;

/// The nodes of a tree's GICs.
pub(super) struct GicNodes<'t, 'a> {
    /// The first usable one that is not cascaded; else the first usable one, else the first.
    pub(super) root: Option<NodeRef<'t, 'a>>,
    /// All others.
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
            let message = format!("it is cascaded to {}, and no GIC is the root", above.path());
            findings.add(Rule::CascadedGic, first.origin(PARENT), message);
        }
        let root = cascaded.or_else(|| usable().next()).or(all.first()).copied();
        let is_other =
            |node: &NodeRef<'_, '_>| root.is_some_and(|root| root.index() != node.index());
        Self { root, secondary: all.into_iter().filter(is_other).collect() }
    }

    /// The secondary GIC that `node` is, or is a part of.
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

/// The first GIC on the way that the interrupts of `node` take, other than itself.
fn gic_above<'t, 'a>(tree: &'t Tree<'a>, node: NodeRef<'t, 'a>) -> Option<NodeRef<'t, 'a>> {
    let above = |at: &NodeRef<'t, 'a>| interrupt_parent(tree, *at);
    let way = core::iter::successors(above(&node), above).take(MAX_STEPS);
    let mut way = way.take_while(|at| at.index() != node.index());
    way.find(|at| gic::version(*at).is_some())
}

fn interrupt_parent<'t, 'a>(tree: &'t Tree<'a>, node: NodeRef<'t, 'a>) -> Option<NodeRef<'t, 'a>> {
    match node.property(EXTENDED) {
        Some(value) => tree.by_phandle(u32::from_be_bytes(*value.first_chunk()?)),
        None => wired::parent(tree, node),
    }
}

/// Reason for which nothing takes the interrupts of a secondary GIC.
struct Fault {
    rule: Rule,
    property: &'static str,
    message: String,
}

/// The parent interrupt of a secondary GIC.
fn output<'t, 'a>(
    tree: &'t Tree<'a>,
    node: NodeRef<'t, 'a>,
) -> Result<Fact<ParentInterrupt>, Fault> {
    let (property, reference, skipped) =
        if node.has(EXTENDED) { (EXTENDED, EXTENDED, 1) } else { (INTERRUPTS, PARENT, 0) };
    let fault = |property, message| Fault { rule: Rule::CascadedGic, property, message };
    let parent = match interrupt_parent(tree, node) {
        None if node.has(reference) => {
            return Err(fault(reference, String::from("it leads to no node")));
        }
        parent => parent.filter(|parent| parent.index() != node.index()),
    };
    let Some(parent) = parent else {
        let message = String::from("another one is the root, and this one is cascaded to none");
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
        Some(_) => Some(wired::interrupt(specifier).map_err(|message| fault(property, message))?),
    };
    let parent = ParentInterrupt { controller: parent.id(), intid };
    Ok(Fact::new(parent, node.origin(property)))
}
