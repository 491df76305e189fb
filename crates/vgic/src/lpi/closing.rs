//! Slots that are taken back. What a device's entry led to is closed depth first, with a path of
//! fixed length for memory: taking mappings away allocates nothing.

use super::directory::{CHUNK_BITS, Entry, MAX_DEPTH, depth};

/// What a device's entry led to, on the way of being taken back: depth first.
#[derive(Default)]
pub(super) struct Closing {
    /// Blocks have `2^size` slots.
    size: u32,
    /// A block that hangs under no node.
    block: Option<Entry>,
    /// Nodes on the way down, each with the index of its entry that comes next. The last has blocks
    /// below it if it is at `depth`.
    path: [(Option<Entry>, u32); MAX_DEPTH as usize],
    /// How many nodes are on the way.
    nodes: usize,
    depth: usize,
}

impl Closing {
    /// What a sender's entry led to.
    pub(super) fn of(root: Entry, event_bits: u32) -> Self {
        let mut closing = Self {
            size: event_bits.min(CHUNK_BITS),
            depth: depth(event_bits) as usize,
            ..Self::default()
        };
        if root.is_valid() {
            closing.block = closing.enter(root);
        }
        closing
    }

    /// log2 of the blocks' size.
    pub(super) const fn size(&self) -> u32 {
        self.size
    }

    /// The block that an entry names; if it names a node, that comes next.
    pub(super) fn enter(&mut self, entry: Entry) -> Option<Entry> {
        if self.nodes == self.depth {
            return Some(entry);
        }
        if let Some(place) = self.path.get_mut(self.nodes) {
            *place = (Some(entry), 0);
            self.nodes += 1;
        }
        None
    }

    /// The node that is being closed, and the index of the entry that comes next.
    pub(super) fn next_entry(&mut self) -> Option<(Entry, u32)> {
        let (node, next) = self.path.get_mut(self.nodes.checked_sub(1)?)?;
        *next += 1;
        Some(((*node)?, *next - 1))
    }

    /// The block that hangs under no node, if it is still there.
    pub(super) const fn take_block(&mut self) -> Option<Entry> {
        self.block.take()
    }

    /// Is nothing left?
    pub(super) const fn is_done(&self) -> bool {
        self.block.is_none() && self.nodes == 0
    }

    /// A node has no entries any more.
    pub(super) const fn leave_node(&mut self) {
        self.nodes = self.nodes.saturating_sub(1);
    }
}
