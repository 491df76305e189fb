//! The properties that connect nodes to their interrupt controllers (Devicetree Specification
//! §2.4).

use super::tree::{NodeRef, Tree};

pub(super) const CONTROLLER: &str = "interrupt-controller";
pub(super) const CELLS: &str = "#interrupt-cells";
pub(super) const PARENT: &str = "interrupt-parent";
pub(super) const INTERRUPTS: &str = "interrupts";
pub(super) const EXTENDED: &str = "interrupts-extended";
pub(super) const INTERRUPT_NAMES: &str = "interrupt-names";
pub(super) const MAP: &str = "interrupt-map";

/// Compatible strings of controllers whose drivers read `interrupt-map` themselves, and whose map
/// has no cells for the parent's address, regardless of the parent (Linux's `of_irq_imap_abusers`).
pub(super) const WITHOUT_ADDRESS: &[&str] =
    &["fsl,ls1021a-extirq", "fsl,ls1043a-extirq", "fsl,ls1088a-extirq"];

/// Compatible strings of controllers between devices and the GIC, which have the GIC's interrupts
/// under the same numbers, for example to wake the system (bindings `fsl,imx-gpc.yaml`,
/// `fsl,imx-gpcv2.yaml`, `mediatek,mt6577-sysirq.yaml`, `nvidia,tegra20-ictlr.yaml`).
const FORWARDERS: &[&str] = &[
    "fsl,imx6q-gpc",
    "fsl,imx7d-gpc",
    "fsl,imx8mm-gpc",
    "fsl,imx8mn-gpc",
    "fsl,imx8mp-gpc",
    "fsl,imx8mq-gpc",
    "mediatek,mt6577-sysirq",
    "nvidia,tegra20-ictlr",
    "nvidia,tegra30-ictlr",
];

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
    let is_without = node.is_compatible(WITHOUT_ADDRESS);
    map_entries_by(tree, node, cells, move |parent| {
        let stated = cell_count(parent, "#address-cells").unwrap_or(0);
        if is_without { 0 } else { stated }
    })
}

/// Splits an `interrupt-map` whose entries have `address_cells` cells for a parent's address.
pub(super) fn map_entries_by<'t, 'a, 'c>(
    tree: &'t Tree<'a>,
    node: NodeRef<'t, 'a>,
    cells: &'c [u32],
    address_cells: impl Fn(NodeRef<'t, 'a>) -> usize,
) -> impl Iterator<Item = MapEntry<'t, 'a, 'c>> {
    let child = cell_count(node, "#address-cells").zip(cell_count(node, CELLS));
    let child = child.map(|(address, specifier)| address.saturating_add(specifier));
    let mut rest = cells;
    core::iter::from_fn(move || {
        let (child, after) = rest.split_at_checked(child?)?;
        let (&phandle, after) = after.split_first()?;
        let parent = tree.by_phandle(phandle)?;
        let count = cell_count(parent, CELLS)?;
        let after = after.get(address_cells(parent)..).unwrap_or_default();
        let specifier = after.get(..count).unwrap_or(after);
        rest = after.get(count..).unwrap_or_default();
        Some(MapEntry { child, parent, specifier })
    })
}

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

/// Returns the controller whose interrupts the specifiers of `controller` state.
pub(super) fn numbering<'t, 'a>(
    tree: &'t Tree<'a>,
    controller: NodeRef<'t, 'a>,
) -> Option<NodeRef<'t, 'a>> {
    if controller.is_compatible(FORWARDERS) { parent(tree, controller) } else { Some(controller) }
}
