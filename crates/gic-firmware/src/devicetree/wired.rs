//! Finds the users of the GIC's wired interrupts (Devicetree Specification §2.4).
//!
//! An interrupt that passes a nexus is attributed to the nexus: each entry of its `interrupt-map`
//! whose parent is the GIC counts as an interrupt of the nexus. So we never look up specifiers in
//! maps, and we read each property only once.

use super::address::cells;
use super::tree::{NodeRef, Tree};
use crate::finding::Rule;
use crate::finding_list::FindingList;
use crate::origin::Fact;
use crate::wired::WiredUser;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::IntId;

pub(super) const CELLS: &str = "#interrupt-cells";
pub(super) const PARENT: &str = "interrupt-parent";
pub(super) const INTERRUPTS: &str = "interrupts";
pub(super) const EXTENDED: &str = "interrupts-extended";
pub(super) const MAP: &str = "interrupt-map";

/// Compatible strings of controllers whose drivers read `interrupt-map` themselves, and whose map
/// has no cells for the parent's address, regardless of the parent (Linux's `of_irq_imap_abusers`).
const WITHOUT_ADDRESS: &[&str] =
    &["fsl,ls1021a-extirq", "fsl,ls1043a-extirq", "fsl,ls1088a-extirq"];

/// Reads the users of the wired interrupts of `gic`.
pub(super) fn read(
    tree: &Tree<'_>,
    gic: NodeRef<'_, '_>,
    findings: &mut FindingList,
) -> Vec<WiredUser> {
    let gic_cells = cell_count(gic, CELLS).filter(|&cells| cells >= 3);
    let Some(gic_cells) = gic_cells else {
        if gic.has(CELLS) {
            let message = "a GIC's interrupts have at least three cells";
            findings.add(Rule::MalformedProperty, gic.origin(CELLS), message);
        }
        return Vec::new();
    };
    let mut reader = Reader { tree, gic, gic_cells, findings };
    tree.nodes().filter_map(|node| reader.user(node)).collect()
}

struct Reader<'t, 'a, 'f> {
    tree: &'t Tree<'a>,
    gic: NodeRef<'t, 'a>,
    gic_cells: usize,
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
            for specifier in cells(value).unwrap_or_default().chunks(self.gic_cells) {
                self.add(node, INTERRUPTS, specifier, &mut interrupts);
            }
        }
        if let Some(value) = node.property(MAP) {
            self.map(node, &cells(value).unwrap_or_default(), &mut interrupts);
        }
        let user = WiredUser { id: node.id(), status: node.status(), interrupts };
        (!user.interrupts.is_empty()).then_some(user)
    }

    /// Reads `interrupts-extended`, up to the first reference whose number of cells is unknown.
    fn extended(
        &mut self,
        node: NodeRef<'t, 'a>,
        cells: &[u32],
        interrupts: &mut Vec<Fact<IntId>>,
    ) {
        let mut rest = cells;
        while let Some((&phandle, after)) = rest.split_first() {
            if phandle == 0 {
                rest = after;
                continue;
            }
            let parent = self.tree.by_phandle(phandle);
            let Some((parent, count)) =
                parent.and_then(|parent| Some((parent, cell_count(parent, CELLS)?)))
            else {
                return;
            };
            if self.is_gic(parent) {
                self.add(node, EXTENDED, after.get(..count).unwrap_or(after), interrupts);
            }
            rest = after.get(count..).unwrap_or_default();
        }
    }

    fn map(&mut self, node: NodeRef<'t, 'a>, cells: &[u32], interrupts: &mut Vec<Fact<IntId>>) {
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
        match interrupt(specifier) {
            Ok(intid) => interrupts.push(Fact::new(intid, node.origin(property))),
            Err(message) if node.status().is_enabled() => {
                self.findings.add(Rule::InterruptSpecifier, node.origin(property), message);
            }
            Err(_) => {}
        }
    }
}

/// An entry of `interrupt-map`.
pub(super) struct MapEntry<'t, 'a, 'c> {
    /// Unit address and interrupt specifier of the child, in the format that the nexus defines.
    pub(super) child: &'c [u32],
    pub(super) parent: NodeRef<'t, 'a>,
    pub(super) specifier: &'c [u32],
}

/// Splits `cells` of the `interrupt-map` of `node` into entries, each of which has the child's
/// address and specifier, the parent, and the parent's address and specifier. Ends before an entry
/// whose length is unknown. A node without `#address-cells` has zero address cells here, as in
/// Linux.
pub(super) fn map_entries<'t, 'a, 'c>(
    tree: &'t Tree<'a>,
    node: NodeRef<'t, 'a>,
    cells: &'c [u32],
) -> impl Iterator<Item = MapEntry<'t, 'a, 'c>> {
    let child = cell_count(node, "#address-cells").zip(cell_count(node, CELLS));
    let child = child.map(|(address, specifier)| address.saturating_add(specifier));
    let mut rest = cells;
    core::iter::from_fn(move || {
        let (child, after) = rest.split_at_checked(child?)?;
        let (&phandle, after) = after.split_first()?;
        let parent = tree.by_phandle(phandle)?;
        let stated = cell_count(parent, "#address-cells").unwrap_or(0);
        let address = if node.is_compatible(WITHOUT_ADDRESS) { 0 } else { stated };
        let count = cell_count(parent, CELLS)?;
        let after = after.get(address..).unwrap_or_default();
        let specifier = after.get(..count).unwrap_or(after);
        rest = after.get(count..).unwrap_or_default();
        Some(MapEntry { child, parent, specifier })
    })
}

/// Classes of interrupts, by type: name, first INTID, and number of interrupts (binding
/// `arm,gic-v3.yaml`; IHI 0069H §2.2.1).
const CLASSES: [(&str, u32, u32); 4] =
    [("SPI", 32, 988), ("PPI", 16, 16), ("extended SPI", 4096, 1024), ("extended PPI", 1056, 64)];

/// Returns the number of cells that `property` states, without validation.
pub(super) fn cell_count(node: NodeRef<'_, '_>, property: &str) -> Option<usize> {
    usize::try_from(node.number(property)?).ok()
}

/// Returns the node that receives the interrupts of `node`. On the path from `node` to the root,
/// this is the first ancestor that is an interrupt controller, or the target of the first
/// `interrupt-parent`, whichever is found first.
pub(super) fn parent<'t, 'a>(tree: &'t Tree<'a>, node: NodeRef<'t, 'a>) -> Option<NodeRef<'t, 'a>> {
    for above in node.upwards() {
        if above.index() != node.index() && above.has(CELLS) {
            return Some(above);
        }
        if let Some(phandle) = above.number(PARENT) {
            return tree.by_phandle(phandle);
        }
    }
    None
}

/// Decodes an interrupt specifier (binding `arm,gic-v3.yaml`). The error is a message for the user.
pub(super) fn interrupt(specifier: &[u32]) -> Result<IntId, String> {
    let &[kind, number, _flags, ..] = specifier else {
        return Err(format!("{} cells are not an interrupt of the GIC", specifier.len()));
    };
    let class = usize::try_from(kind).ok().and_then(|kind| CLASSES.get(kind));
    let Some((name, first, count)) = class else {
        return Err(format!("{kind:#x} is not a type of interrupt"));
    };
    if number < *count {
        Ok(IntId::new(first + number))
    } else {
        Err(format!("{name} {number} is out of range: {count} exist"))
    }
}

/// Returns the type and the number of an interrupt, which are the first cells of its specifier.
/// Returns `None` if no specifier can encode the INTID.
#[cfg(feature = "write")]
pub(super) fn specifier(intid: IntId) -> Option<[u32; 2]> {
    (0..).zip(CLASSES).find_map(|(kind, (_, first, count))| {
        let number = intid.get().checked_sub(first)?;
        (number < count).then_some([kind, number])
    })
}
