//! Finds the users of the GIC's wired interrupts (Devicetree Specification §2.4).
//!
//! An interrupt that passes a nexus is attributed to the nexus: each entry of its `interrupt-map`
//! whose parent is the GIC counts as an interrupt of the nexus. So we never look up specifiers in
//! maps, and we read each property only once.

use super::address::cells;
use super::interrupt_tree::{
    CELLS, CONTROLLER, EXTENDED, INTERRUPTS, MAP, cell_count, map_entries, parent,
};
use super::references;
use super::specifier::{has_type, interrupt};
use super::tree::{NodeRef, Tree};
use super::wired_checks::{Use, Uses};
use crate::description::WiredUser;
use crate::finding::{FindingList, Rule};
use crate::origin::Fact;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::IntId;

/// Reads the users of the wired interrupts of `gic`.
pub(super) fn read<'t, 'a>(
    tree: &'t Tree<'a>,
    gic: NodeRef<'t, 'a>,
    findings: &mut FindingList,
) -> Vec<WiredUser> {
    let gic_cells = gic_cells(gic, findings);
    if let Some(message) = gic_cells.and_then(|cells| wrong_cells(tree, gic, cells)) {
        // Stop here; otherwise, every reference to the GIC would be reported as well.
        findings.add(Rule::MalformedProperty, gic.origin(CELLS), message);
        return Vec::new();
    }
    references::check(tree, findings);
    references::addresses(tree, findings);
    let Some(gic_cells) = gic_cells else { return Vec::new() };
    let mut reader = Reader { tree, gic, gic_cells, uses: Uses::default(), findings };
    let users = tree.nodes().filter_map(|node| reader.user(node)).collect();
    let Reader { uses, findings, .. } = reader;
    uses.check(gic, findings);
    users
}

/// Returns the number of cells in a GIC's interrupt specifiers.
fn gic_cells(gic: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<usize> {
    if gic.status().is_enabled() {
        for (property, purpose) in [
            (CONTROLLER, "without it, operating systems do not use the GIC"),
            (CELLS, "without it, no interrupt of the GIC can be read"),
        ] {
            if !gic.has(property) {
                findings.add(Rule::MissingProperty, gic.origin(property), purpose);
            }
        }
    }
    let cells = cell_count(gic, CELLS);
    let usable = cells.filter(|&cells| cells >= 3);
    if usable.is_none() && gic.has(CELLS) {
        let message = "a GIC's interrupts have at least three cells";
        findings.add(Rule::MalformedProperty, gic.origin(CELLS), message);
    }
    usable
}

/// Returns a message if the interrupts of more users fit another number of cells than fit the
/// number that the GIC states. In that case, the GIC is wrong, not its users.
fn wrong_cells(tree: &Tree<'_>, gic: NodeRef<'_, '_>, stated: usize) -> Option<String> {
    let meant = if stated == 3 { 4 } else { 3 };
    let (mut fit, mut fit_other) = (0, 0);
    for node in tree.nodes().filter(|node| node.status().is_enabled() && !node.has(EXTENDED)) {
        let Some(value) = node.property(INTERRUPTS) else { continue };
        let count = value.len() / size_of::<u32>();
        if parent(tree, node).is_none_or(|parent| parent.index() != gic.index()) {
            continue;
        }
        if count.is_multiple_of(stated) {
            fit += 1;
        } else if count.is_multiple_of(meant) {
            fit_other += 1;
        }
    }
    (fit_other > fit.max(1)).then(|| {
        format!(
            "`{CELLS}` is {stated}, but the `{INTERRUPTS}` of {fit_other} nodes have {meant} cells \
             for each interrupt: none can be read"
        )
    })
}

struct Reader<'t, 'a, 'f> {
    tree: &'t Tree<'a>,
    gic: NodeRef<'t, 'a>,
    gic_cells: usize,
    uses: Uses<'t, 'a>,
    findings: &'f mut FindingList,
}

impl<'t, 'a> Reader<'t, 'a, '_> {
    fn user(&mut self, node: NodeRef<'t, 'a>) -> Option<WiredUser> {
        let mut interrupts = Vec::new();
        if let Some(value) = node.property(EXTENDED) {
            self.extended(node, &cells(value).unwrap_or_default(), &mut interrupts);
        } else if let Some(value) = node.property(INTERRUPTS)
            && parent(self.tree, node).is_some_and(|parent| self.is_gic(parent))
        {
            self.plain(node, &cells(value).unwrap_or_default(), &mut interrupts);
        }
        if let Some(value) = node.property(MAP) {
            self.map(node, &cells(value).unwrap_or_default(), &mut interrupts);
        }
        let user = WiredUser { id: node.id(), status: node.status(), interrupts };
        (!user.interrupts.is_empty()).then_some(user)
    }

    /// Reads `interrupts`. If its length is wrong, states why instead of reading garbage.
    fn plain(&mut self, node: NodeRef<'t, 'a>, cells: &[u32], interrupts: &mut Vec<Fact<IntId>>) {
        if cells.len().is_multiple_of(self.gic_cells) {
            for specifier in cells.chunks(self.gic_cells) {
                self.add(node, INTERRUPTS, specifier, interrupts);
            }
            return;
        }
        if !node.status().is_enabled() {
            return;
        }
        let message = self.begins_with_phandle(cells).unwrap_or_else(|| {
            format!(
                "`interrupts` has {} cells, but an interrupt of {} has {}",
                cells.len(),
                self.gic.path(),
                self.gic_cells
            )
        });
        self.findings.add(Rule::InterruptSpecifier, node.origin(INTERRUPTS), message);
    }

    /// Returns a message if `cells` begin with the phandle of a controller, which does not belong
    /// in `interrupts`.
    fn begins_with_phandle(&self, cells: &[u32]) -> Option<String> {
        let named = self.tree.by_phandle(*cells.first()?).filter(|named| named.has(CELLS))?;
        let path = named.path();
        Some(format!(
            "`interrupts` begins with the phandle of {path}, as `interrupts-extended` does"
        ))
    }

    /// Reads `interrupts-extended`, up to the first reference whose number of cells is unknown.
    fn extended(
        &mut self,
        node: NodeRef<'t, 'a>,
        cells: &[u32],
        interrupts: &mut Vec<Fact<IntId>>,
    ) {
        for (parent, specifier) in references::extended(self.tree, cells).map_while(Result::ok) {
            if self.is_gic(parent) {
                self.add(node, EXTENDED, specifier, interrupts);
            }
        }
    }

    fn map(&mut self, node: NodeRef<'t, 'a>, cells: &[u32], interrupts: &mut Vec<Fact<IntId>>) {
        if node.status().is_enabled() && references::map(self.tree, node, cells, self.findings) {
            return;
        }
        for entry in map_entries(self.tree, node, cells) {
            if self.is_gic(entry.parent) {
                self.add(node, MAP, entry.specifier, interrupts);
            }
        }
    }

    fn is_gic(&self, node: NodeRef<'_, '_>) -> bool {
        node.index() == self.gic.index()
    }

    /// Adds the interrupt that `specifier` encodes. Defects of a disabled node are not reported.
    fn add(
        &mut self,
        node: NodeRef<'t, 'a>,
        property: &'static str,
        specifier: &[u32],
        interrupts: &mut Vec<Fact<IntId>>,
    ) {
        let is_enabled = node.status().is_enabled();
        match interrupt(specifier) {
            Ok(intid) => {
                interrupts.push(Fact::new(intid, node.origin(property)));
                if is_enabled {
                    let flags = specifier.get(2).copied().unwrap_or_default();
                    self.uses.add(Use { node, property, intid, flags });
                }
            }
            Err(message) if is_enabled => {
                let is_odd = property == INTERRUPTS && !has_type(specifier);
                let phandle = is_odd.then(|| self.begins_with_phandle(specifier)).flatten();
                let message = phandle.unwrap_or(message);
                self.findings.add(Rule::InterruptSpecifier, node.origin(property), message);
            }
            Err(_) => {}
        }
    }
}
