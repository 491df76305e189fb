//! The teardown of a device's entries. Nodes and blocks below a device's link are closed depth
//! first, and the position is kept in an array of fixed length, so that removing mappings allocates
//! nothing.

use super::itt::{CHUNK_BITS, Link, MAX_DEPTH, depth};

/// The nodes and blocks below a device's link that are still to be closed, depth first.
#[derive(Default)]
pub(super) struct IttTeardown {
    /// Log2 of the number of entries in a block.
    size: u32,
    /// The block of a device without nodes.
    block: Option<Link>,
    /// The nodes from the root down to the current one, each with the index of its next link. A
    /// node has blocks below it if it is the one at `depth`.
    path: [(Option<Link>, u32); MAX_DEPTH as usize],
    /// Number of nodes in `path` that are in use.
    nodes: usize,
    depth: usize,
}

impl IttTeardown {
    /// Creates the teardown of all nodes and blocks below a device's link.
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

    /// Returns the block that a link names. If it names a node, that node is closed next and the
    /// result is `None`.
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

    /// Takes the block of a device without nodes, if it has not been taken yet.
    pub(super) const fn take_block(&mut self) -> Option<Link> {
        self.block.take()
    }

    /// Returns `true` if all nodes and blocks are closed.
    pub(super) const fn is_done(&self) -> bool {
        self.block.is_none() && self.nodes == 0
    }

    /// Leaves the current node, whose links are all cleared.
    pub(super) const fn leave_node(&mut self) {
        self.nodes = self.nodes.saturating_sub(1);
    }
}
