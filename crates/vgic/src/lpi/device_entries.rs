//! Allocation of entries for devices, and their return. A block's entries carry its generation
//! before a link names it, and a link is gone before the entries are cleared.

use super::control::Control;
use super::entry::Entry;
use super::entry_allocator::{Block, Owner};
use super::entry_table::EntryIndex;
use super::itt::{CHUNK_BITS, CHUNK_ENTRIES, EntryRef, Link, NODE_LINKS, depth, node_index};
use super::itt_teardown::IttTeardown;
use super::mapping::NoRoom;
use super::shared::Location;
use super::sweep::Settings;
use crate::sync::{AtomicU64, Ordering};
use gic_arch::Lpi;

impl Control {
    /// The entry of a device's event, taken from the allocator if need be. The device has
    /// `event_bits` bits of events, and `event` fits them. On error, nodes on the way to the entry
    /// may have come.
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
        // The entries of a chunk are in one page.
        let block = self.allocator.take_block(size, |first| {
            self.shared.entries.ensure(first)?;
            self.by_lpi.ensure_chunk(first)
        })?;
        self.count_work(1 << size);
        for index in block_entries(block.first, size) {
            self.shared.update(Location::Event(index), |_| Entry::unmapped(block.generation));
        }
        Ok(block)
    }

    /// Goes on closing what a link named: nodes, and blocks, of which nothing is pending
    /// afterwards. `false`: nothing is left.
    pub(super) fn close(&mut self, teardown: &mut IttTeardown) -> bool {
        let Some((node, index)) = teardown.next_link() else { return false };
        let Some(cell) = self.shared.nodes.link(node.node(), index).filter(|_| index < NODE_LINKS)
        else {
            self.allocator.release_node(node.node());
            teardown.leave_node();
            return true;
        };
        let below = Link::from_bits(cell.swap(Link::NONE.bits(), Ordering::SeqCst));
        self.count_work(1);
        if below.is_valid()
            && let Some(block) = teardown.enter(below)
        {
            self.close_block(block.first_entry(), teardown.size());
        }
        true
    }

    pub(super) fn close_block(&mut self, first: EntryIndex, size: u32) {
        self.count_work(1 << size);
        for index in block_entries(first, size) {
            self.unmap_entry(index);
        }
        self.allocator.release_block(first, size);
    }

    /// An entry becomes an event's, mapped to an LPI.
    pub(super) fn give_entry(&mut self, index: EntryIndex, owner: Owner, lpi: Lpi) {
        self.forget_lpi(index);
        self.allocator.set_owner(index, owner);
        self.by_lpi.insert(lpi.index(), index);
    }

    /// An event's entry is not mapped any more to the LPI that it names.
    fn forget_lpi(&mut self, index: EntryIndex) {
        if self.allocator.owner(index) != Owner::Nobody {
            let lpi_index = self.shared.load(Location::Event(index)).lpi_index();
            self.by_lpi.remove(lpi_index, index);
            if let Some(left) = self.by_lpi.only(lpi_index).map(Location::Event)
                // Without memory for its ready bit, what is pending stays beside the event.
                && let Ok(Some(refresh)) = self.prepared(left, Settings::Keep)
                && self.take_own(self.shared.load(left).target(), lpi_index)
            {
                self.pend(left, refresh);
            }
        }
    }

    /// Makes an entry map nothing. Its generation stays: the block's owner is the same.
    pub(super) fn unmap_entry(&mut self, index: EntryIndex) {
        self.forget_lpi(index);
        self.allocator.set_owner(index, Owner::Nobody);
        let unmapped = |entry: Entry| {
            let target = entry.target();
            entry.replaced_by(Entry::unmapped(entry.generation()).with_target(target))
        };
        let (old, _) = self.shared.update(Location::Event(index), unmapped);
        self.recall(old);
    }
}

fn block_entries(first: EntryIndex, size: u32) -> impl Iterator<Item = EntryIndex> {
    (0..(1u32 << size).min(CHUNK_ENTRIES)).map(move |at| first.offset(at))
}
