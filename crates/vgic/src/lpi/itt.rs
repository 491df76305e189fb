//! From (device, event) to an entry: a link per device. A device that has more events than one
//! chunk of entries holds has nodes of 64 links. Nodes are type-stable and change hands: see
//! [`Nodes::translate`].

use super::entry::GENERATION_BITS;
use super::entry_table::{EntryIndex, Position, SPREAD_BITS};
use crate::sync::{AtomicU64, Ordering};
use alloc::boxed::Box;
use doorbell_fallible::{OutOfMemory, try_page, try_page_table};
use once_cell::race::OnceBox;

/// Entries of a chunk, as a power of two.
pub(super) const CHUNK_BITS: u32 = SPREAD_BITS;
/// Entries of a chunk.
pub(super) const CHUNK_ENTRIES: u32 = 1 << CHUNK_BITS;
/// Entries of a node, as a power of two.
pub(super) const NODE_BITS: u32 = 6;
const NODE_MASK: u32 = (1 << NODE_BITS) - 1;
/// Entries of a node.
pub(super) const NODE_LINKS: u32 = 1 << NODE_BITS;
/// Most event bits that a device can have: a chunk under three nodes.
pub(super) const MAX_EVENT_BITS: u32 = CHUNK_BITS + MAX_DEPTH * NODE_BITS;
/// Nodes of a page.
const PAGE_BITS: u32 = 3;
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;

const INDEX_BITS: u32 = 32;
const EVENT_BITS_SHIFT: u32 = INDEX_BITS + GENERATION_BITS;
const DEPTH_SHIFT: u32 = EVENT_BITS_SHIFT + 5;
const VALID: u64 = 1 << 63;

/// A link of a device table entry or of a node. It has the position of the first entry, or the
/// number of the next node, and the generation of what it names. A device's also has the number of
/// its event bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link(u64);

impl Link {
    /// Names nothing.
    pub(super) const NONE: Self = Self(0);

    /// Names a block of entries.
    pub(super) const fn of_block(first: EntryIndex, generation: u32) -> Self {
        Self::new(first.position().get(), generation)
    }

    /// Names a node.
    pub(super) const fn of_node(node: u32, generation: u32) -> Self {
        Self::new(node, generation)
    }

    const fn new(index: u32, generation: u32) -> Self {
        Self(VALID | index as u64 | (generation as u64) << INDEX_BITS)
    }

    /// As a device's link: with the number of its event bits.
    pub(super) const fn of_device(self, event_bits: u32) -> Self {
        Self(
            self.0
                | (event_bits as u64) << EVENT_BITS_SHIFT
                | (depth(event_bits) as u64) << DEPTH_SHIFT,
        )
    }

    /// From an atomic's value.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// For an atomic.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// Does it name something?
    pub(super) const fn is_valid(self) -> bool {
        self.0 & VALID != 0
    }

    /// The node.
    #[expect(clippy::cast_possible_truncation, reason = "the number is the low half")]
    pub(super) const fn node(self) -> u32 {
        self.0 as u32
    }

    /// The first entry of the block.
    pub(super) const fn first_entry(self) -> EntryIndex {
        Position::new(self.node()).index()
    }

    /// The entry of the block that is an event's.
    #[inline]
    const fn entry(self, event: u32) -> EntryRef {
        let first = Position::new(self.node());
        EntryRef { position: first.offset_in_chunk(event), generation: self.generation() }
    }

    /// Does a device's link name something, and has the device such an event?
    #[inline]
    const fn has(self, event: u32) -> bool {
        self.is_valid() && event as u64 >> self.event_bits() == 0
    }

    /// The generation of the entries or of the node.
    pub(super) const fn generation(self) -> u32 {
        ((self.0 >> INDEX_BITS) & ((1 << GENERATION_BITS) - 1)) as u32
    }

    /// A device's event bits.
    pub(super) const fn event_bits(self) -> u32 {
        (self.0 >> EVENT_BITS_SHIFT) as u32 & 0x1f
    }

    /// Number of nodes between a device's link and its entries.
    const fn depth(self) -> u32 {
        (self.0 >> DEPTH_SHIFT) as u32 & 3
    }
}

/// Most nodes between a device's link and its entries.
pub(super) const MAX_DEPTH: u32 = 3;

/// Number of nodes between a device with this many event bits and its entries.
pub(super) const fn depth(event_bits: u32) -> u32 {
    event_bits.saturating_sub(CHUNK_BITS).div_ceil(NODE_BITS)
}

/// Index of the link that leads to `event`, in the node that has `below` nodes below it.
pub(super) const fn node_index(event: u32, below: u32) -> u32 {
    (event >> (CHUNK_BITS + NODE_BITS * below)) & NODE_MASK
}

/// A reference to an event's entry, with the generation that the entry must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EntryRef {
    /// The entry's position.
    pub(super) position: Position,
    /// Its generation.
    pub(super) generation: u32,
}

impl EntryRef {
    /// The entry.
    pub(super) const fn index(self) -> EntryIndex {
        self.position.index()
    }
}

type IttNode = [AtomicU64; NODE_LINKS as usize];

/// The nodes.
pub(super) struct Nodes {
    pages: Box<[OnceBox<[IttNode; 1 << PAGE_BITS]>]>,
}

impl Nodes {
    /// Room for this many nodes; they come with [`ensure`](Self::ensure).
    pub(super) fn new(nodes: u32) -> Result<Self, OutOfMemory> {
        Ok(Self { pages: try_page_table(nodes.div_ceil(1 << PAGE_BITS))? })
    }

    /// Makes sure that the page of `node` is there. Off the hot path.
    pub(super) fn ensure(&self, node: u32) -> Result<(), OutOfMemory> {
        match self.pages.get((node >> PAGE_BITS) as usize) {
            Some(page) => Ok(try_page(page, || core::array::from_fn(|_| AtomicU64::new(0)))?),
            None => Ok(()),
        }
    }

    /// A link of a node; `None` where no such node was ever made.
    #[inline]
    pub(super) fn link(&self, node: u32, index: u32) -> Option<&AtomicU64> {
        let page = self.pages.get((node >> PAGE_BITS) as usize)?.get()?;
        Some(&page[(node & PAGE_MASK) as usize][(index & NODE_MASK) as usize])
    }

    /// Finds the entry of a device's event; `None` if there is none (never mapped, out of range,
    /// just unmapped).
    ///
    /// A device's node may pass to another device between the load of the device's link and that of
    /// the node's. So the device's link is loaded again at the end. A link that names a node
    /// carries the node's generation, so that it never comes back the same. The entry's own
    /// generation says that it is still the device's.
    pub(super) fn translate(&self, dte: &AtomicU64, event: u32) -> Option<EntryRef> {
        let root = Link::from_bits(dte.load(Ordering::SeqCst));
        if !root.has(event) {
            return None;
        }
        self.translate_from(dte, root, root.depth(), event)
    }

    /// As [`translate`](Self::translate), but finds only entries with at most one node above them:
    /// those of all devices of up to 2^11 events.
    #[inline(always)]
    pub(super) fn translate_near(&self, dte: &AtomicU64, event: u32) -> Option<EntryRef> {
        let root = Link::from_bits(dte.load(Ordering::SeqCst));
        match root.depth() {
            _ if !root.has(event) => None,
            0 => Some(root.entry(event)),
            1 => self.translate_from(dte, root, 1, event),
            _ => None,
        }
    }

    /// Goes from a device's link, which was `root`, through so many nodes.
    #[inline(always)]
    fn translate_from(
        &self,
        dte: &AtomicU64,
        root: Link,
        depth: u32,
        event: u32,
    ) -> Option<EntryRef> {
        let mut at = root;
        for below in (0..depth).rev() {
            let link = self.link(at.node(), node_index(event, below))?;
            at = Link::from_bits(link.load(Ordering::SeqCst));
            if !at.is_valid() {
                return None;
            }
        }
        if depth > 0 && dte.load(Ordering::SeqCst) != root.bits() {
            return None;
        }
        Some(at.entry(event & (CHUNK_ENTRIES - 1)))
    }
}
