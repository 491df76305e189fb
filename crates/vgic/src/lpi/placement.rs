//! Giving slots to senders and taking them back. A block's words carry its generation before an
//! entry names it, and an entry is gone before the words are cleared.

use super::closing::Closing;
use super::control::{Control, Settings};
use super::directory::{CHUNK_BITS, CHUNK_SLOTS, Entry, NODE_ENTRIES, Place, depth, node_index};
use super::mappings::NoRoom;
use super::pool::{Block, Owner};
use super::shared::Location;
use super::slots::Slot;
use super::word::Word;
use crate::atomic::{AtomicU64, Ordering};
use gic_arch::Lpi;

impl Control {
    /// The slot of a sender's event, taken from the pool if need be. The sender has `event_bits`
    /// bits of events, and `event` fits them. On error, nodes on the way to the slot may have come.
    pub(super) fn attach(
        &mut self,
        sender: &AtomicU64,
        event_bits: u32,
        event: u32,
    ) -> Result<Place, NoRoom> {
        if let Some(place) = self.find(sender, event) {
            return Ok(place);
        }
        if depth(event_bits) == 0 {
            let block = self.open_block(event_bits)?;
            let entry = Entry::new(block.first.get(), block.generation).of_sender(event_bits);
            sender.store(entry.bits(), Ordering::SeqCst);
        } else {
            self.attach_through_nodes(sender, event_bits, event)?;
        }
        self.find(sender, event).ok_or(NoRoom::Budget)
    }

    fn attach_through_nodes(
        &mut self,
        sender: &AtomicU64,
        event_bits: u32,
        event: u32,
    ) -> Result<(), NoRoom> {
        let shared = self.shared.clone();
        let mut node = match Entry::from_bits(sender.load(Ordering::SeqCst)) {
            root if root.is_valid() => root.index(),
            _ => {
                let entry = self.open_node()?.of_sender(event_bits);
                sender.store(entry.bits(), Ordering::SeqCst);
                entry.index()
            }
        };
        for below in (1..depth(event_bits)).rev() {
            let place = shared.nodes.entry(node, node_index(event, below)).ok_or(NoRoom::Budget)?;
            let mut entry = Entry::from_bits(place.load(Ordering::SeqCst));
            if !entry.is_valid() {
                entry = self.open_node()?;
                place.store(entry.bits(), Ordering::SeqCst);
            }
            node = entry.index();
        }
        let place = shared.nodes.entry(node, node_index(event, 0)).ok_or(NoRoom::Budget)?;
        let block = self.open_block(CHUNK_BITS)?;
        place.store(Entry::new(block.first.get(), block.generation).bits(), Ordering::SeqCst);
        Ok(())
    }

    fn open_node(&mut self) -> Result<Entry, NoRoom> {
        let (node, generation) = self.pool.take_node(|node| self.shared.nodes.ensure(node))?;
        Ok(Entry::new(node, generation))
    }

    fn open_block(&mut self, size: u32) -> Result<Block, NoRoom> {
        // The words of a chunk are in one page.
        let block = self.pool.take_block(size, |first| self.shared.slots.ensure(first))?;
        self.count_work(1 << size);
        for slot in block_slots(block.first, size) {
            self.shared.update(Location::Slot(slot), |_| Word::unmapped(block.generation));
        }
        Ok(block)
    }

    /// Goes on closing what an entry named: nodes, and blocks, of which nothing is pending
    /// afterwards. `false`: nothing is left.
    pub(super) fn close(&mut self, closing: &mut Closing) -> bool {
        let Some((node, index)) = closing.next_entry() else { return false };
        let Some(place) =
            self.shared.nodes.entry(node.index(), index).filter(|_| index < NODE_ENTRIES)
        else {
            self.pool.release_node(node.index());
            closing.leave_node();
            return true;
        };
        let below = Entry::from_bits(place.swap(Entry::NONE.bits(), Ordering::SeqCst));
        self.count_work(1);
        if below.is_valid()
            && let Some(block) = closing.enter(below)
        {
            self.close_block(Slot::new(block.index()), closing.size());
        }
        true
    }

    pub(super) fn close_block(&mut self, first: Slot, size: u32) {
        self.count_work(1 << size);
        for slot in block_slots(first, size) {
            self.unmap_slot(slot);
        }
        self.pool.release_block(first, size);
    }

    /// A slot becomes an event's, mapped to an LPI.
    pub(super) fn give_slot(&mut self, slot: Slot, owner: Owner, lpi: Lpi) {
        self.forget_lpi(slot);
        self.pool.set_owner(slot, owner);
        self.by_lpi.insert(lpi.index(), slot);
    }

    /// An event's slot is not mapped to the LPI any more that its word names.
    fn forget_lpi(&mut self, slot: Slot) {
        if self.pool.owner(slot) != Owner::Nobody {
            let index = self.shared.load(Location::Slot(slot)).lpi_index();
            self.by_lpi.remove(index, slot);
            if let Some(left) = self.by_lpi.find(index).one().map(Location::Slot)
                // Without memory for its hints, what is pending stays beside the event.
                && let Ok(Some(refresh)) = self.prepared(left, Settings::Keep)
                && self.take_own(self.shared.load(left).target(), index)
            {
                self.pend(left, refresh);
            }
        }
    }

    /// Makes a slot map nothing. Its generation stays: that ties it to its block's owner.
    pub(super) fn unmap_slot(&mut self, slot: Slot) {
        self.forget_lpi(slot);
        self.pool.set_owner(slot, Owner::Nobody);
        let unmapped = |word: Word| {
            let target = word.target();
            word.replaced_by(Word::unmapped(word.generation()).with_target(target))
        };
        let (old, _) = self.shared.update(Location::Slot(slot), unmapped);
        self.recall(old);
    }
}

fn block_slots(first: Slot, size: u32) -> impl Iterator<Item = Slot> {
    (0..(1u32 << size).min(CHUNK_SLOTS)).map(move |at| first.offset(at))
}
