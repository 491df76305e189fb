//! Reads how a host bridge's `interrupt-map` routes PCI pins (Devicetree Specification §2.4.3, IEEE
//! 1275 PCI interrupt mapping).

use super::address::cells;
use super::interrupt_tree::{self, MAP};
use super::pci_hosts::is_pci_host;
use super::specifier;
use super::tree::{NodeRef, Tree};
use crate::intx::{IntxRoute, IntxRouting};
use crate::origin::Fact;
use crate::requester::PciHost;

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
        let numbered = interrupt_tree::numbering(tree, node);
        gic.zip(numbered).is_some_and(|(gic, numbered)| gic.index() == numbered.index())
    };
    let route = |entry: interrupt_tree::MapEntry<'t, 'a, '_>| {
        let [address, middle, low, pin] = *entry.child.first_chunk()?;
        let interrupt = is_gic(entry.parent).then(|| specifier::wired(entry.specifier)).flatten();
        // The two lower cells of a function's configuration address are zero.
        let is_reached = middle & mask[1] == 0 && low & mask[2] == 0;
        is_reached.then(|| Fact::new(IntxRoute { address, pin, interrupt }, host.origin(MAP)))
    };
    Some(IntxRouting {
        address_mask: mask[0],
        pin_mask: mask[3],
        routes: interrupt_tree::map_entries(tree, host, &words).filter_map(route).collect(),
    })
}
