//! Entries that are taken back. What a device's link led to is closed depth first, with a path of
//! fixed length for memory: taking mappings away allocates nothing.

use super::itt::{CHUNK_BITS, Link, MAX_DEPTH, depth};

/// The nodes and blocks below a device's link, on the way of being taken back: depth first.
#[derive(Default)]
pub(super) struct IttTeardown {
    /// Blocks have `2^size` entries.
    size: u32,
    /// A block that hangs under no node.
    block: Option<Link>,
    /// Nodes on the way down, each with the index of its link that comes next. The last has blocks
    /// below it if it is at `depth`.
    path: [(Option<Link>, u32); MAX_DEPTH as usize],
    /// Number of nodes on the way.
    nodes: usize,
    depth: usize,
}

impl IttTeardown {
    /// Of all below a device's link.
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

    /// log2 of the blocks' size.
    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    /// The block that a link names; if it names a node, that comes next.
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

    /// The node that is being closed, and the index of the link that comes next.
    pub(super) fn next_link(&mut self) -> Option<(Link, u32)> {
        let (node, next) = self.path.get_mut(self.nodes.checked_sub(1)?)?;
        *next += 1;
        Some(((*node)?, *next - 1))
    }

    /// The block that hangs under no node, if it is still there.
    pub(super) const fn take_block(&mut self) -> Option<Link> {
        self.block.take()
    }

    /// Is nothing left?
    pub(super) const fn is_done(&self) -> bool {
        self.block.is_none() && self.nodes == 0
    }

    /// A node has no links any more.
    pub(super) const fn leave_node(&mut self) {
        self.nodes = self.nodes.saturating_sub(1);
    }
}
