//! The path from DeviceID and EventID to an entry. Each device has one link, which points directly
//! to the device's entries. If the device has more events than fit in one chunk, the link points to
//! a tree of nodes with 64 links each. Nodes are type-stable, and may be reassigned to another
//! device: see [`Nodes::translate`].

use super::entry::{DELIVERABLE, GENERATION_BITS, GENERATION_MAX};
use super::entry_table::{EntryIndex, Position, SPREAD_BITS};
use super::ready_bitmap::MAX_POSITIONS;
use crate::sync::{AtomicU64, Ordering};
use alloc::boxed::Box;
use doorbell_fallible::{OnceBox, OutOfMemory, try_page, try_page_table};

/// Log2 of the number of entries in a chunk.
pub(super) const CHUNK_BITS: u32 = SPREAD_BITS;
/// Number of entries in a chunk.
pub(super) const CHUNK_ENTRIES: u32 = 1 << CHUNK_BITS;
/// Log2 of the number of links in a node.
pub(super) const NODE_BITS: u32 = 6;
const NODE_MASK: u32 = (1 << NODE_BITS) - 1;
/// Number of links in a node.
pub(super) const NODE_LINKS: u32 = 1 << NODE_BITS;
/// Maximum number of event bits per device.
pub(super) const MAX_EVENT_BITS: u32 = 23;
/// Log2 of the number of nodes on a page.
const PAGE_BITS: u32 = 3;
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;

const INDEX_SHIFT: u32 = GENERATION_BITS + 1;
const INDEX_BITS: u32 = 23;
const EVENT_BITS_SHIFT: u32 = INDEX_SHIFT + INDEX_BITS;
const DEPTH_SHIFT: u32 = EVENT_BITS_SHIFT + 5;
/// Flag of a link to a node.
const NODE: u64 = 1 << (DEPTH_SHIFT + 2);
/// Flag of a device's link to a node whose links lead to entries.
const ONE_NODE: u64 = NODE << 1;
/// Flag of a link to a block of entries.
const BLOCK: u64 = DELIVERABLE;
/// Position of the number of events, in a device's link to a block.
const EVENTS_SHIFT: u32 = u64::BITS - CHUNK_BITS - 1;
const _: () = assert!(MAX_POSITIONS <= 1 << INDEX_BITS && ONE_NODE < 1 << EVENTS_SHIFT);
const _: () = assert!(MAX_EVENT_BITS <= CHUNK_BITS + MAX_DEPTH * NODE_BITS);

/// A link in a device table entry or a node. A link holds the position of a block's first entry or
/// the number of the next node, and the generation of that block or node. The link in a device
/// table entry also holds the number of the device's event bits, which is the only valid part
/// before the device has entries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Link(u64);

impl Link {
    /// The invalid link.
    pub(super) const NONE: Self = Self(0);

    /// Creates a link to a block of entries.
    pub(super) const fn of_block(first: EntryIndex, generation: u32) -> Self {
        Self::new(BLOCK, first.position().get(), generation)
    }

    /// Creates a link to a node.
    pub(super) const fn of_node(node: u32, generation: u32) -> Self {
        Self::new(NODE, node, generation)
    }

    const fn new(kind: u64, index: u32, generation: u32) -> Self {
        Self(kind | (index as u64) << INDEX_SHIFT | generation as u64)
    }

    /// Adds the number of event bits, for the link in a device table entry.
    pub(super) const fn of_device(self, event_bits: u32) -> Self {
        let depth = depth(event_bits) as u64;
        let shape = match self.0 & (BLOCK | NODE) {
            BLOCK => 1 << (EVENTS_SHIFT + event_bits),
            NODE if depth == 1 => ONE_NODE,
            _ => 0,
        };
        Self(self.0 | shape | (event_bits as u64) << EVENT_BITS_SHIFT | depth << DEPTH_SHIFT)
    }

    /// Converts from an atomic's value.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Converts to an atomic's value.
    pub(super) const fn bits(self) -> u64 {
        self.0
    }

    /// Returns `true` if the link is valid.
    pub(super) const fn is_valid(self) -> bool {
        self.0 & (BLOCK | NODE) != 0
    }

    /// Returns the node number.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the number has 23 bits")]
    pub(super) const fn node(self) -> u32 {
        (self.0 >> INDEX_SHIFT) as u32 & ((1 << INDEX_BITS) - 1)
    }

    /// Returns the first entry of the block.
    pub(super) const fn first_entry(self) -> EntryIndex {
        Position::new(self.node()).index()
    }

    /// Returns an event's entry in the block.
    #[inline(always)]
    const fn entry(self, event: u32) -> EntryRef {
        let first = Position::new(self.node());
        EntryRef { position: first.offset_in_chunk(event), link: self }
    }

    /// Returns `true` if the link is a device's, and points to a node whose links point to blocks.
    /// All devices with 2^7 to 2^12 events have such a link.
    #[inline]
    pub(super) const fn has_one_node(self) -> bool {
        self.0 & ONE_NODE != 0
    }

    /// Returns `true` if a device's link is valid and the device has this event.
    #[inline]
    const fn has(self, event: u32) -> bool {
        self.is_valid() && event as u64 >> self.event_bits() == 0
    }

    /// Returns an event's entry, if this is the link to a block of a device that has the event.
    #[inline(always)]
    pub(super) fn near_entry(self, event: u32) -> Option<EntryRef> {
        let has_near = u64::from(event) < self.0 >> EVENTS_SHIFT;
        has_near.then(|| self.entry(event))
    }

    /// Returns the device's number of event bits.
    pub(super) const fn event_bits(self) -> u32 {
        (self.0 >> EVENT_BITS_SHIFT) as u32 & 0x1f
    }

    /// Returns the number of nodes between a device's link and its entries.
    const fn depth(self) -> u32 {
        (self.0 >> DEPTH_SHIFT) as u32 & 3
    }
}

/// Maximum number of nodes between a device's link and its entries.
pub(super) const MAX_DEPTH: u32 = 3;

/// Returns the number of nodes between a device's link and its entries, if it has this many event
/// bits.
pub(super) const fn depth(event_bits: u32) -> u32 {
    event_bits.saturating_sub(CHUNK_BITS).div_ceil(NODE_BITS)
}

/// Returns the index of the link for `event`, in a node with `below` nodes below it.
pub(super) const fn node_index(event: u32, below: u32) -> u32 {
    (event >> (CHUNK_BITS + NODE_BITS * below)) & NODE_MASK
}

/// Reference to an event's entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct EntryRef {
    /// The entry's position.
    pub(super) position: Position,
    /// The link to the entry's block.
    pub(super) link: Link,
}

impl EntryRef {
    /// Returns the entry's index.
    pub(super) const fn index(self) -> EntryIndex {
        self.position.index()
    }

    /// Returns the entry's expected generation.
    #[expect(clippy::cast_possible_truncation, reason = "the generation is in the low bits")]
    pub(super) const fn generation(self) -> u32 {
        self.link.0 as u32 & GENERATION_MAX
    }
}

type IttNode = [AtomicU64; NODE_LINKS as usize];

/// The nodes of all devices' ITTs.
pub(super) struct Nodes {
    pages: Box<[OnceBox<[IttNode; 1 << PAGE_BITS]>]>,
}

impl Nodes {
    /// Creates a table for this many nodes. Pages are allocated by [`ensure`](Self::ensure).
    pub(super) fn new(nodes: u32) -> Result<Self, OutOfMemory> {
        Ok(Self { pages: try_page_table(nodes.div_ceil(1 << PAGE_BITS))? })
    }

    /// Allocates the page for `node`, if necessary. Must not be called on the hot path.
    pub(super) fn ensure(&self, node: u32) -> Result<(), OutOfMemory> {
        match self.pages.get((node >> PAGE_BITS) as usize) {
            Some(page) => Ok(try_page(page, || core::array::from_fn(|_| AtomicU64::new(0)))?),
            None => Ok(()),
        }
    }

    /// Returns a link in a node, or `None` if the node's page was never allocated.
    #[inline]
    pub(super) fn link(&self, node: u32, index: u32) -> Option<&AtomicU64> {
        let page = self.pages.get((node >> PAGE_BITS) as usize)?.get()?;
        Some(&page[(node & PAGE_MASK) as usize][(index & NODE_MASK) as usize])
    }

    /// Finds the entry for a device's event. Returns `None` if the event was never mapped, is out
    /// of range, or was just unmapped.
    ///
    /// A node may be reassigned to another device between the loads of the device's link and of the
    /// node's link, so we load the device's link again at the end. A link to a node includes the
    /// generation of the node, so the same link value never recurs. The entry's generation shows
    /// whether the entry still belongs to the device.
    pub(super) fn translate(&self, dte: &AtomicU64, event: u32) -> Option<EntryRef> {
        let root = Link::from_bits(dte.load(Ordering::SeqCst));
        if !root.has(event) {
            return None;
        }
        self.translate_from(dte, root, root.depth(), event)
    }

    /// Translates like [`translate`](Self::translate), by a device's link that was loaded from
    /// `dte` and [has one node](Link::has_one_node), but only finds entries whose block exists.
    #[inline(always)]
    pub(super) fn translate_by_node(
        &self,
        dte: &AtomicU64,
        root: Link,
        event: u32,
    ) -> Option<EntryRef> {
        // The node has no links for events that the device doesn't have.
        let is_in_node = event >> CHUNK_BITS < NODE_LINKS;
        is_in_node.then(|| self.translate_from(dte, root, 1, event)).flatten()
    }

    /// Follows a device's link through this many nodes. `root` is the link's value.
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
