//! Checks that references to interrupt controllers resolve (Devicetree Specification §2.4).

use super::gic;
use super::interrupt_tree::{
    CELLS, CONTROLLER, EXTENDED, INTERRUPTS, MAP, MapEntry, PARENT, WITHOUT_ADDRESS, cell_count,
    interrupt, map_entries, map_entries_by,
};
use super::tree::{NodeRef, Tree, cells, cells_in_words};
use crate::finding::{FindingList, Rule};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;
use alloc::{format, vec};

const MAP_MASK: &str = "interrupt-map-mask";
const ADDRESS_CELLS: &str = "#address-cells";
/// Numbers of address cells to try if a map does not match the stated number.
const TRIED: [usize; 4] = [0, 1, 2, 3];

/// Reports interrupts without a controller.
pub(super) fn check(tree: &Tree<'_>, findings: &mut FindingList) {
    let mut orphans = Vec::new();
    for node in tree.nodes() {
        if !node.status().is_enabled() {
            continue;
        }
        // `cascade` checks the references of GICs.
        let is_gic = gic::version(node).is_some();
        if let Some(phandle) = node.number(PARENT).filter(|_| is_used(node) && !is_gic) {
            parent(tree, node, phandle, findings);
        }
        if let Some(value) = node.property(EXTENDED).filter(|_| !is_gic) {
            let words = cells(value).unwrap_or_default();
            if let Some(Err(fault)) = extended(tree, &words).find(Result::is_err) {
                findings.add(fault.rule, node.origin(EXTENDED), fault.message);
            }
        } else if node.has(INTERRUPTS) && !has_parent(node) {
            orphans.push(node);
        }
        if node.property(CONTROLLER).is_some_and(|value| !value.is_empty()) {
            let message = "`interrupt-controller` has no value: was `interrupt-parent` meant?";
            findings.add(Rule::MalformedProperty, node.origin(CONTROLLER), message);
        }
    }
    let Some(first) = orphans.first() else { return };
    let root = first.upwards().last().unwrap_or(*first);
    let others = match orphans.len() - 1 {
        0 => String::new(),
        1 => String::from(" and of one other node"),
        count => format!(" and of {count} other nodes"),
    };
    let message = format!(
        "the interrupts of {}{others} have no controller: neither the node nor a node above it \
         states `interrupt-parent`",
        first.path()
    );
    findings.add(Rule::MissingInterruptParent, root.origin(PARENT), message);
}

/// Reports parents of `interrupt-map` that do not state the length of their addresses, which the
/// Devicetree Specification requires (§2.4.3.1).
pub(super) fn addresses(tree: &Tree<'_>, findings: &mut FindingList) {
    // By parent: the first node whose map names it.
    let mut hosts = vec![None; tree.nodes().count()];
    for node in tree.nodes().filter(|node| node.status().is_enabled()) {
        let words = node.property(MAP).and_then(cells).unwrap_or_default();
        for entry in map_entries(tree, node, &words) {
            if !entry.parent.has(ADDRESS_CELLS)
                && !node.is_compatible(WITHOUT_ADDRESS)
                && let Some(host @ None) = hosts.get_mut(entry.parent.index())
            {
                *host = Some(node);
            }
        }
    }
    for (parent, node) in tree.nodes().zip(hosts) {
        let Some(node) = node else { continue };
        let message = format!("readers of the `{MAP}` of {} must assume zero cells", node.path());
        findings.add(Rule::MissingAddressCells, parent.origin(ADDRESS_CELLS), message);
    }
}

/// Returns `true` if `interrupt-parent` of `node` is used: by the node's own interrupts, or, in the
/// root, by other nodes.
fn is_used(node: NodeRef<'_, '_>) -> bool {
    node.parent().is_none() || node.has(INTERRUPTS)
}

fn parent(tree: &Tree<'_>, node: NodeRef<'_, '_>, phandle: u32, findings: &mut FindingList) {
    let origin = node.origin(PARENT);
    match tree.by_phandle(phandle) {
        None => {
            let message = format!("`interrupt-parent`: no node has phandle {phandle:#x}");
            findings.add(Rule::UnknownPhandle, origin, message);
        }
        Some(parent) if !parent.has(CELLS) => {
            let message = format!("{} takes no interrupts: it has no `{CELLS}`", parent.path());
            findings.add(Rule::NotAnInterruptController, origin, message);
        }
        Some(_) => {}
    }
}

/// Returns `true` if a node on the path to the root determines the controller of `node`.
fn has_parent(node: NodeRef<'_, '_>) -> bool {
    let is_controller = |above: NodeRef<'_, '_>| above.index() != node.index() && above.has(CELLS);
    node.upwards().any(|above| above.has(PARENT) || is_controller(above))
}

/// Reason why a reference cannot be read.
pub(super) struct Fault {
    rule: Rule,
    message: String,
}

impl Fault {
    fn new(rule: Rule, message: String) -> Self {
        Self { rule, message }
    }
}

/// Splits `interrupts-extended` into controllers and specifiers, up to the first fault.
pub(super) fn extended<'t, 'a, 'c>(
    tree: &'t Tree<'a>,
    words: &'c [u32],
) -> impl Iterator<Item = Result<(NodeRef<'t, 'a>, &'c [u32]), Fault>> {
    let mut rest = words;
    core::iter::from_fn(move || {
        while let Some((0, after)) = rest.split_first() {
            rest = after;
        }
        let (&phandle, after) = rest.split_first()?;
        rest = &[];
        let Some(parent) = tree.by_phandle(phandle) else {
            let message = format!("`{EXTENDED}`: no node has phandle {phandle:#x}");
            return Some(Err(Fault::new(Rule::UnknownPhandle, message)));
        };
        let Some(count) = cell_count(parent, CELLS) else {
            let message = format!("{} takes no interrupts: it has no `{CELLS}`", parent.path());
            return Some(Err(Fault::new(Rule::NotAnInterruptController, message)));
        };
        let Some((specifier, after)) = after.split_at_checked(count) else {
            let message = format!(
                "{} must follow the phandle of {}, but {} do",
                cells_in_words(count),
                parent.path(),
                after.len()
            );
            return Some(Err(Fault::new(Rule::MalformedProperty, message)));
        };
        rest = after;
        Some(Ok((parent, specifier)))
    })
}

/// Checks `interrupt-map` of an enabled node. Returns `true` if the map cannot be split into
/// entries.
pub(super) fn map(
    tree: &Tree<'_>,
    node: NodeRef<'_, '_>,
    words: &[u32],
    findings: &mut FindingList,
) -> bool {
    if !node.has(CELLS) {
        let message = "without it, the entries of `interrupt-map` cannot be read";
        findings.add(Rule::MissingProperty, node.origin(CELLS), message);
        return true;
    }
    if node.is_compatible(WITHOUT_ADDRESS) || !node.has(ADDRESS_CELLS) {
        return false;
    }
    let entries: Vec<_> = map_entries(tree, node, words).collect();
    if is_sound(&entries, words.len(), node, None) {
        hidden(node, &entries, findings);
        return false;
    }
    let Some(gic) = entries.first().map(|entry| entry.parent) else {
        unresolved(tree, node, words, findings);
        return true;
    };
    let stated = cell_count(gic, ADDRESS_CELLS).unwrap_or(0);
    let fits = |count: &usize| {
        let entries: Vec<_> = map_entries_by(tree, node, words, |_| *count).collect();
        *count != stated && is_sound(&entries, words.len(), node, Some(*count))
    };
    if let Some(count) = TRIED.iter().find(|count| fits(count)) {
        let message = format!(
            "each entry has {} for the unit address of {}, whose `{ADDRESS_CELLS}` is {stated}",
            cells_in_words(*count),
            gic.path()
        );
        findings.add(Rule::InterruptMapCells, node.origin(MAP), message);
        return true;
    }
    false
}

/// Reports a map whose first entry cannot be read.
fn unresolved(tree: &Tree<'_>, node: NodeRef<'_, '_>, words: &[u32], findings: &mut FindingList) {
    let child = cell_count(node, ADDRESS_CELLS).zip(cell_count(node, CELLS));
    let place = child.map_or(0, |(address, cells)| address.saturating_add(cells));
    let (rule, message) = match words.get(place) {
        None => (Rule::MalformedProperty, String::from("the map has no whole entry")),
        Some(phandle) => match tree.by_phandle(*phandle) {
            None => (Rule::UnknownPhandle, format!("`{MAP}`: no node has phandle {phandle:#x}")),
            Some(parent) => {
                let message = format!("{} takes no interrupts: it has no `{CELLS}`", parent.path());
                (Rule::NotAnInterruptController, message)
            }
        },
    };
    findings.add(rule, node.origin(MAP), message);
}

/// Returns `true` if the entries fill the map, and if each entry whose parent is a GIC has a valid
/// specifier. A parent's address has `address` cells, or as many as the parent states if `None`.
fn is_sound(
    entries: &[MapEntry<'_, '_, '_>],
    words: usize,
    node: NodeRef<'_, '_>,
    address: Option<usize>,
) -> bool {
    let child = cell_count(node, ADDRESS_CELLS).zip(cell_count(node, CELLS));
    let Some((first, second)) = child else { return true };
    let mut used = 0usize;
    for entry in entries {
        let stated = || cell_count(entry.parent, ADDRESS_CELLS).unwrap_or(0);
        let count = cell_count(entry.parent, CELLS).unwrap_or(0);
        let address = address.unwrap_or_else(stated);
        let parts = [first, second, 1, address, count];
        used = parts.into_iter().fold(used, usize::saturating_add);
        let is_gic = gic::version(entry.parent).is_some();
        if entry.specifier.len() < count || (is_gic && interrupt(entry.specifier).is_err()) {
            return false;
        }
    }
    used == words
}

/// Reports an entry that is equal to an earlier entry, or becomes equal by the mask. The earlier
/// entry is always used instead.
fn hidden(node: NodeRef<'_, '_>, entries: &[MapEntry<'_, '_, '_>], findings: &mut FindingList) {
    let Some(mask) = node.property(MAP_MASK).and_then(cells) else { return };
    let mut known = BTreeMap::new();
    for (number, entry) in (1..).zip(entries) {
        let masked: Vec<u32> =
            entry.child.iter().zip(&mask).map(|(cell, mask)| cell & mask).collect();
        let (earlier, child) = *known.entry(masked).or_insert((number, entry.child));
        if earlier != number {
            let pair = format!("entries {earlier} and {number}");
            let (property, cause) = if child == entry.child {
                (MAP, format!("{pair} have the same address and pin"))
            } else {
                (MAP_MASK, format!("`{MAP_MASK}` makes {pair} of `{MAP}` equal"))
            };
            let message = format!("{cause}, so that entry {number} is never used");
            findings.add(Rule::InterruptMapOverlap, node.origin(property), message);
            return;
        }
    }
}
