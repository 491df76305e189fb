//! Giving slots to senders and taking them back. A block's words carry its generation before an entry names it, and
//! an entry is gone before the words are cleared.

use super::control::Control;
use super::directory::{CHUNK_BITS, CHUNK_SLOTS, Entry, NODE_ENTRIES, Place, depth, node_index};
use super::pool::{Block, Owner};
use super::shared::Location;
use super::slots::Slot;
use super::sweeps::Closing;
use super::word::Word;
use crate::atomic::{AtomicU64, Ordering};
use gic_arch::Lpi;

impl Control {
    /// The slot of a sender's event, taken from the pool if need be; `None` if the budget is used up. The sender has
    /// `event_bits` bits of events, and `event` fits them.
    pub(super) fn attach(&mut self, sender: &AtomicU64, event_bits: u32, event: u32) -> Option<Place> {
        if let Some(place) = self.find(sender, event) {
            return Some(place);
        }
        if depth(event_bits) == 0 {
            let block = self.open_block(event_bits)?;
            let entry = Entry::new(block.first.get(), block.generation).of_sender(event_bits);
            sender.store(entry.bits(), Ordering::SeqCst);
        } else {
            self.attach_through_nodes(sender, event_bits, event)?;
        }
        self.find(sender, event)
    }

    fn attach_through_nodes(&mut self, sender: &AtomicU64, event_bits: u32, event: u32) -> Option<()> {
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
            let place = shared.nodes.entry(node, node_index(event, below))?;
            let mut entry = Entry::from_bits(place.load(Ordering::SeqCst));
            if !entry.is_valid() {
                entry = self.open_node()?;
                place.store(entry.bits(), Ordering::SeqCst);
            }
            node = entry.index();
        }
        let place = shared.nodes.entry(node, node_index(event, 0))?;
        let block = self.open_block(CHUNK_BITS)?;
        place.store(Entry::new(block.first.get(), block.generation).bits(), Ordering::SeqCst);
        Some(())
    }

    fn open_node(&mut self) -> Option<Entry> {
        let (node, generation) = self.pool.take_node()?;
        self.shared.nodes.ensure(node);
        Some(Entry::new(node, generation))
    }

    fn open_block(&mut self, size: u32) -> Option<Block> {
        let block = self.pool.take_block(size)?;
        self.count_work(1 << size);
        for slot in block_slots(block.first, size) {
            self.shared.slots.ensure(slot);
            self.shared.update(Location::Slot(slot), |_| Word::unmapped(block.generation));
        }
        Some(block)
    }

    /// Closes what an entry names: a node, of which the entries are then left to close, or a block of `2^size` slots,
    /// of which nothing is pending afterwards.
    pub(super) fn close(&mut self, entry: Entry, depth: u32, size: u32, closing: &mut Closing) {
        if depth == 0 {
            self.close_block(Slot::new(entry.index()), size);
            return;
        }
        let shared = self.shared.clone();
        self.count_work(NODE_ENTRIES);
        for index in 0..NODE_ENTRIES {
            let Some(place) = shared.nodes.entry(entry.index(), index) else { break };
            let below = Entry::from_bits(place.swap(Entry::NONE.bits(), Ordering::SeqCst));
            if below.is_valid() {
                closing.push(below, depth - 1, size);
            }
        }
        self.pool.release_node(entry.index());
    }

    fn close_block(&mut self, first: Slot, size: u32) {
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
                && self.take_own(self.shared.load(left).target(), index)
            {
                self.pend(left);
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
