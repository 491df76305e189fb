//! Tears down a device's entries. Nodes and blocks below the device's link are *closed*, i.e.
//! unlinked and freed, depth first. The current position is stored in a fixed-size array, so that
//! removing mappings doesn't allocate.

use super::itt::{CHUNK_BITS, Link, MAX_DEPTH, depth};

/// Nodes and blocks below a device's link that are still to be closed.
#[derive(Default)]
pub(super) struct IttTeardown {
    /// Log2 of the number of entries in a block.
    size: u32,
    /// The device's block, if the device has no nodes.
    block: Option<Link>,
    /// Nodes from the root down to the current node, each with the index of its next link. Only a
    /// node at `depth` has blocks below it.
    path: [(Option<Link>, u32); MAX_DEPTH as usize],
    /// Number of nodes in use in `path`.
    nodes: usize,
    depth: usize,
}

impl IttTeardown {
    /// Starts a teardown at a device's link.
    pub(super) fn of(root: Link, event_bits: u32) -> Self {
        let mut teardown = Self {
            size: event_bits.min(CHUNK_BITS),
            depth: depth(event_bits) as usize,
            ..Self::default()
        };
        if root.is_valid() {
            teardown.block = teardown.enter(root);
        }
        teardown
    }

    /// Returns log2 of the number of entries in a block.
    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    /// Returns the block that a link points to. If the link points to a node, returns `None`, and
    /// the node is closed next.
    pub(super) fn enter(&mut self, link: Link) -> Option<Link> {
        if self.nodes == self.depth {
            return Some(link);
        }
        if let Some(place) = self.path.get_mut(self.nodes) {
            *place = (Some(link), 0);
            self.nodes += 1;
        }
        None
    }

    /// Returns the node that is being closed, and the index of its next link.
    pub(super) fn next_link(&mut self) -> Option<(Link, u32)> {
        let (node, next) = self.path.get_mut(self.nodes.checked_sub(1)?)?;
        *next += 1;
        Some(((*node)?, *next - 1))
    }

    /// Returns the block of a device without nodes on the first call, and `None` afterwards.
    pub(super) const fn take_block(&mut self) -> Option<Link> {
        self.block.take()
    }

    /// Returns `true` if all nodes and blocks are closed.
    pub(super) const fn is_done(&self) -> bool {
        self.block.is_none() && self.nodes == 0
    }

    /// Leaves the current node. All links in the node must be cleared.
    pub(super) const fn leave_node(&mut self) {
        self.nodes = self.nodes.saturating_sub(1);
    }
}
