//! Entries for the devices' events: the links to them, their owners, and the LPIs that they are
//! mapped to. All entries in a block are assigned the block's generation before any link points to
//! the block, and a link is cleared before the block's entries are.

use super::config::LpiConfig;
use super::entries_by_lpi::EntriesByLpi;
use super::entry::Entry;
use super::entry_allocator::{Block, EntryAllocator, Owner};
use super::entry_table::EntryIndex;
use super::itt::{
    CHUNK_BITS, CHUNK_ENTRIES, EntryRef, Link, NODE_BITS, NODE_LINKS, depth, node_index,
};
use super::itt_teardown::IttTeardown;
use super::mapping::NoRoom;
use super::shared::{Location, Shared};
use crate::sync::{AtomicU64, Ordering};
use alloc::sync::Arc;
use doorbell_fallible::OutOfMemory;
use gic_arch::Lpi;

/// All devices' entries, under the command lock.
pub(super) struct DeviceEntries {
    shared: Arc<Shared>,
    pub(super) allocator: EntryAllocator,
    /// Entries by the LPI that they are mapped to.
    pub(super) by_lpi: EntriesByLpi,
    /// Number of entries in all blocks allocated so far.
    opened: u64,
}

/// Result of one teardown step.
pub(super) enum Closing {
    /// The teardown was already complete.
    Done,
    /// A node without links was freed.
    Node,
    /// A link was cleared. If the link pointed to a block, the block's entries still have to be
    /// unmapped.
    Link(Option<EntryIndex>),
}

impl DeviceEntries {
    /// Creates an initial state without any entries.
    pub(super) fn new(config: &LpiConfig, shared: Arc<Shared>) -> Result<Self, OutOfMemory> {
        Ok(Self {
            shared,
            allocator: EntryAllocator::new(config.chunks(), config.nodes()),
            by_lpi: EntriesByLpi::new(config.lpis(), config.entries)?,
            opened: 0,
        })
    }

    /// Returns the number of entries in all blocks allocated so far. The number counts toward the
    /// work budget, because allocating a block visits its entries.
    pub(super) const fn opened(&self) -> u64 {
        self.opened
    }

    /// Returns the entry for a device's event, if the event has one.
    pub(super) fn find(&self, dte: &AtomicU64, event: u32) -> Option<EntryRef> {
        self.shared.nodes.translate(dte, event)
    }

    /// Returns the entry for a device's event, allocating it if necessary. The device must have
    /// `event_bits` event bits, and `event` must fit in them. On error, nodes on the path to the
    /// entry may have been allocated.
    pub(super) fn attach(
        &mut self,
        dte: &AtomicU64,
        event_bits: u32,
        event: u32,
    ) -> Result<EntryRef, NoRoom> {
        if let Some(found) = self.find(dte, event) {
            return Ok(found);
        }
        if depth(event_bits) == 0 {
            let block = self.open_block(event_bits)?;
            let link = Link::of_block(block.first, block.generation).of_device(event_bits);
            dte.store(link.bits(), Ordering::SeqCst);
        } else {
            self.attach_through_nodes(dte, event_bits, event)?;
        }
        self.find(dte, event).ok_or(NoRoom::Budget)
    }

    fn attach_through_nodes(
        &mut self,
        dte: &AtomicU64,
        event_bits: u32,
        event: u32,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        let mut node = match Link::from_bits(dte.load(Ordering::SeqCst)) {
            root if root.is_valid() => root.node(),
            _ => {
                let link = self.open_node()?.of_device(event_bits);
                dte.store(link.bits(), Ordering::SeqCst);
                link.node()
            }
        };
        for below in (1..depth(event_bits)).rev() {
            let cell = shared.nodes.link(node, node_index(event, below)).ok_or(NoRoom::Budget)?;
            let mut link = Link::from_bits(cell.load(Ordering::SeqCst));
            if !link.is_valid() {
                link = self.open_node()?;
                cell.store(link.bits(), Ordering::SeqCst);
            }
            node = link.node();
        }
        let cell = shared.nodes.link(node, node_index(event, 0)).ok_or(NoRoom::Budget)?;
        let block = self.open_block(CHUNK_BITS)?;
        cell.store(Link::of_block(block.first, block.generation).bits(), Ordering::SeqCst);
        Ok(())
    }

    fn open_node(&mut self) -> Result<Link, NoRoom> {
        let (node, generation) = self.allocator.take_node(|node| self.shared.nodes.ensure(node))?;
        Ok(Link::of_node(node, generation))
    }

    fn open_block(&mut self, size: u32) -> Result<Block, NoRoom> {
        // All entries in a chunk are on one page.
        let block = self.allocator.take_block(size, |first| {
            self.shared.entries.ensure(first)?;
            self.by_lpi.ensure_chunk(first)
        })?;
        self.opened += 1 << size;
        let unmapped = Entry::unmapped(block.generation);
        let entries = core::iter::repeat_n(unmapped, (1 << size).min(CHUNK_ENTRIES as usize));
        self.shared.entries.store(block.first.position(), entries);
        Ok(block)
    }

    /// Clears the next link of a teardown, or frees the current node if all its links are cleared.
    pub(super) fn close_link(&mut self, teardown: &mut IttTeardown) -> Closing {
        let Some((node, index)) = teardown.next_link() else { return Closing::Done };
        let Some(cell) = self.shared.nodes.link(node.node(), index).filter(|_| index < NODE_LINKS)
        else {
            self.allocator.release_node(node.node());
            teardown.leave_node();
            return Closing::Node;
        };
        let below = Link::from_bits(cell.swap(Link::NONE.bits(), Ordering::SeqCst));
        let block = below.is_valid().then(|| teardown.enter(below)).flatten();
        Closing::Link(block.map(Link::first_entry))
    }

    /// Assigns an entry without an owner to an event that is mapped to an LPI.
    /// [`EntriesByLpi::ensure`] must have succeeded for the LPI.
    pub(super) fn give(&mut self, index: EntryIndex, owner: Owner, lpi: Lpi) {
        self.allocator.set_owner(index, owner);
        self.by_lpi.insert(lpi.index(), index);
    }

    /// Assigns an entry like [`give`](Self::give) if no other entry is mapped to the LPI, for a
    /// thread that holds the LPI's lock. Returns `false` if one is, if the entry is mapped to
    /// another LPI, or if memory must be allocated first.
    pub(super) fn give_only(&self, index: EntryIndex, owner: Owner, lpi: Lpi) -> bool {
        let is_given = match self.allocator.owner(index) {
            Owner::Nobody => self.by_lpi.insert_only(lpi.index(), index),
            Owner::Event { .. } => self.by_lpi.only(lpi.index()) == Some(index),
        };
        if is_given {
            self.allocator.set_owner(index, owner);
        }
        is_given
    }

    /// Removes the owner of an entry that is the only one mapped to this LPI, for a thread that
    /// holds the LPI's lock. Returns `false` if it is not.
    pub(super) fn take_back_only(&self, index: EntryIndex, lpi: Lpi) -> bool {
        let is_taken = self.by_lpi.remove_only(lpi.index(), index);
        if is_taken {
            self.allocator.set_owner(index, Owner::Nobody);
        }
        is_taken
    }

    /// Removes an entry's owner. Returns the index of the LPI that the entry was mapped to (and
    /// still contains), or `None` if it had no owner.
    pub(super) fn take_back(&mut self, index: EntryIndex) -> Option<u32> {
        if self.allocator.owner(index) == Owner::Nobody {
            return None;
        }
        let lpi_index = self.shared.load(Location::Event(index)).lpi_index();
        self.by_lpi.remove(lpi_index, index);
        self.allocator.set_owner(index, Owner::Nobody);
        Some(lpi_index)
    }

    /// Returns `true` if an entry has an owner and is mapped to this LPI.
    pub(super) fn is_mapped_to(&self, index: EntryIndex, lpi: Lpi) -> bool {
        self.allocator.owner(index) != Owner::Nobody
            && self.shared.load(Location::Event(index)).lpi() == lpi
    }

    /// Visits a device's entries in EventID order, including those without an owner.
    pub(super) fn each(&self, dte: &AtomicU64, each: &mut dyn FnMut(u32, EntryIndex)) {
        let root = Link::from_bits(dte.load(Ordering::SeqCst));
        if root.is_valid() {
            let event_bits = root.event_bits();
            self.each_below(root, depth(event_bits), event_bits.min(CHUNK_BITS), 0, each);
        }
    }

    /// Visits the entries below a link: `depth` layers of nodes, then blocks of `2^size` entries,
    /// for the events starting at `first`.
    fn each_below(
        &self,
        link: Link,
        depth: u32,
        size: u32,
        first: u32,
        each: &mut dyn FnMut(u32, EntryIndex),
    ) {
        let Some(below) = depth.checked_sub(1) else {
            (0..1 << size).for_each(|at| each(first + at, link.first_entry().offset(at)));
            return;
        };
        for index in 0..NODE_LINKS {
            let Some(cell) = self.shared.nodes.link(link.node(), index) else { break };
            let child = Link::from_bits(cell.load(Ordering::SeqCst));
            if child.is_valid() {
                let first = first + (index << (CHUNK_BITS + NODE_BITS * below));
                self.each_below(child, below, size, first, each);
            }
        }
    }
}

/// Returns the entries in a block.
pub(super) fn block_entries(first: EntryIndex, size: u32) -> impl Iterator<Item = EntryIndex> {
    (0..(1u32 << size).min(CHUNK_ENTRIES)).map(move |at| first.offset(at))
}
