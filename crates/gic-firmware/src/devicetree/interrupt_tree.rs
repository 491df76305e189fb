//! Reads the properties that connect nodes to their interrupt controllers (Devicetree Specification
//! §2.4): interrupt specifiers of the GIC (binding `arm,gic-v3.yaml`), and how a host bridge's
//! `interrupt-map` routes PCI pins (§2.4.3, IEEE 1275 PCI interrupt mapping).

use super::tree::{NodeRef, Tree, cells};
use super::windows::is_pci_host;
use crate::controller::{IntxRoute, IntxRouting, WiredInterrupt};
use crate::description::PciHost;
use crate::finding::Fact;
use alloc::format;
use alloc::string::String;
use gic_arch::IntId;
use msi_types::Trigger;

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

/// A class of interrupts (IHI 0069H §2.2.1).
pub(super) struct Class {
    name: &'static str,
    /// INTID of the interrupt with number 0.
    pub(super) first: u32,
    count: u32,
}

/// Flags for an interrupt triggered by a rising or a falling edge (binding `arm,gic-v3.yaml`).
const EDGES: u32 = 3;

pub(super) const SPI: Class = Class { name: "SPI", first: 32, count: 988 };
const PPI: Class = Class { name: "PPI", first: 16, count: 16 };
/// The classes, by the type that a specifier states.
const CLASSES: [Class; 4] = [
    SPI,
    PPI,
    Class { name: "extended SPI", first: 4096, count: 1024 },
    Class { name: "extended PPI", first: 1056, count: 64 },
];

/// Returns the class and the number of an interrupt with its INTID, e.g. "SPI 40 (INTID 72)".
pub(super) fn describe(intid: IntId) -> String {
    let named = CLASSES.iter().find_map(|class| {
        let number = intid.get().checked_sub(class.first)?;
        (number < class.count).then(|| format!("{} {number} (INTID {})", class.name, intid.get()))
    });
    named.unwrap_or_else(|| format!("INTID {}", intid.get()))
}

/// Returns `true` if a specifier states a known type of interrupt.
pub(super) fn has_type(specifier: &[u32]) -> bool {
    let kind = specifier.first().and_then(|&kind| usize::try_from(kind).ok());
    kind.is_some_and(|kind| kind < CLASSES.len())
}

/// Decodes a specifier. The error is a message for the user.
pub(super) fn interrupt(specifier: &[u32]) -> Result<IntId, String> {
    let &[kind, number, _flags, ..] = specifier else {
        return Err(format!("{} cells are not an interrupt of the GIC", specifier.len()));
    };
    let class = usize::try_from(kind).ok().and_then(|kind| CLASSES.get(kind));
    let Some(Class { name, first, count }) = class else {
        return Err(format!("{kind:#x} is not a type of interrupt"));
    };
    if number < *count {
        return Ok(IntId::new(first + number));
    }
    let range =
        format!("{name} {number} does not exist: {name}s have the numbers 0 to {}", count - 1);
    // The number may be an INTID, or the type may be missing.
    Err(match number.checked_sub(*first).filter(|meant| meant < count) {
        Some(meant) => format!("{range}; INTID {number} is {name} {meant}"),
        None => range,
    })
}

/// Decodes a specifier with its trigger.
pub(super) fn wired(specifier: &[u32]) -> Option<WiredInterrupt> {
    let intid = interrupt(specifier).ok()?;
    let is_edge = specifier.get(2).is_some_and(|flags| flags & EDGES != 0);
    Some(WiredInterrupt { intid, trigger: if is_edge { Trigger::Edge } else { Trigger::Level } })
}

/// Returns the type and the number of an interrupt, which are the first cells of its specifier.
/// Returns `None` if no specifier can encode the INTID.
#[cfg(feature = "write")]
pub(super) fn specifier(intid: IntId) -> Option<[u32; 2]> {
    (0..).zip(CLASSES).find_map(|(kind, Class { first, count, .. })| {
        let number = intid.get().checked_sub(first)?;
        (number < count).then_some([kind, number])
    })
}

const MASK: &str = "interrupt-map-mask";
/// Number of cells in a function's address and pin together.
const CHILD: usize = 4;

/// Sets the routing of pins to `gic` for `hosts`, which were read from `tree`.
pub(super) fn read(tree: &Tree<'_>, gic: Option<NodeRef<'_, '_>>, hosts: &mut [PciHost]) {
    for (node, host) in tree.nodes().filter(|node| is_pci_host(*node)).zip(hosts) {
        host.intx = routing(tree, gic, node);
    }
}

fn routing<'t, 'a>(
    tree: &'t Tree<'a>,
    gic: Option<NodeRef<'t, 'a>>,
    host: NodeRef<'t, 'a>,
) -> Option<IntxRouting> {
    let words = cells(host.property(MAP)?)?;
    let mask = host.property(MASK).and_then(cells).unwrap_or_default();
    // Without a mask, all bits are compared, as in Linux.
    let mask: [u32; CHILD] = mask.first_chunk().copied().unwrap_or([u32::MAX; CHILD]);
    let is_gic = |node: NodeRef<'t, 'a>| {
        let numbered = numbering(tree, node);
        gic.zip(numbered).is_some_and(|(gic, numbered)| gic.index() == numbered.index())
    };
    let route = |entry: MapEntry<'t, 'a, '_>| {
        let [address, middle, low, pin] = *entry.child.first_chunk()?;
        let interrupt = is_gic(entry.parent).then(|| wired(entry.specifier)).flatten();
        // The two lower cells of a function's configuration address are zero.
        let is_reached = middle & mask[1] == 0 && low & mask[2] == 0;
        is_reached.then(|| Fact::new(IntxRoute { address, pin, interrupt }, host.origin(MAP)))
    };
    Some(IntxRouting {
        address_mask: mask[0],
        pin_mask: mask[3],
        routes: map_entries(tree, host, &words).filter_map(route).collect(),
    })
}
