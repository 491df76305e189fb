//! Who owns which slot and which node: the allocator, under the command lock.
//!
//! Slots come in chunks of 32. A chunk serves blocks of one size at a time, from one slot to all 32, so that small
//! devices share it; it is free for any size again when its last block is. Each time a block or a node changes hands
//! its generation grows, and at the last generation it stays unused: a generation never comes back.

use super::directory::{CHUNK_BITS, CHUNK_SLOTS};
use super::slots::Slot;
use super::word::GENERATION_MAX;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;

/// From this generation on, a chunk may not serve all its slots once more.
const LAST_USES: u32 = GENERATION_MAX - CHUNK_SLOTS;
const SIZES: usize = CHUNK_BITS as usize + 1;

/// Whose a slot is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// Its block may belong to a device, but no event is mapped here.
    Nobody,
    /// An event of a device of this ITS, in this collection.
    Event {
        /// Which ITS.
        its: u16,
        /// Which collection.
        collection: u16,
    },
}

struct Chunk {
    /// log2 of the block size that it serves.
    size: u32,
    /// One bit per slot in use.
    used: u32,
    generation: u32,
    owners: [Owner; CHUNK_SLOTS as usize],
}

/// A block of slots: a power of two, up to a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    /// First slot.
    pub(super) first: Slot,
    /// Which owner this is of the slots, counted.
    pub(super) generation: u32,
}

/// The slots and nodes that there are.
pub(super) struct Pool {
    chunks: Vec<Chunk>,
    chunk_limit: u32,
    free_chunks: Vec<u32>,
    /// By block size: chunks of that size with room.
    partial: [BTreeSet<u32>; SIZES],
    nodes: Vec<u32>,
    node_limit: u32,
    free_nodes: Vec<u32>,
}

impl Pool {
    pub(super) fn new(chunk_limit: u32, node_limit: u32) -> Self {
        Self {
            chunks: Vec::new(),
            chunk_limit,
            free_chunks: Vec::new(),
            partial: core::array::from_fn(|_| BTreeSet::new()),
            nodes: Vec::new(),
            node_limit,
            free_nodes: Vec::new(),
        }
    }

    /// Takes `2^size` slots, at most a chunk; `None` if the budget is used up.
    pub(super) fn take_block(&mut self, size: u32) -> Option<Block> {
        let size = size.min(CHUNK_BITS);
        let number = self.partial[size as usize].first().copied().or_else(|| self.open_chunk(size))?;
        let chunk = self.chunks.get_mut(number as usize)?;
        let at = (0..CHUNK_SLOTS).step_by(1 << size).find(|at| chunk.used & (1 << at) == 0)?;
        chunk.used |= block_bits(at, size);
        chunk.generation += 1;
        if !chunk.has_room() {
            self.partial[size as usize].remove(&number);
        }
        Some(Block {
            first: Slot::new(number * CHUNK_SLOTS + at),
            generation: self.chunks[number as usize].generation,
        })
    }

    fn open_chunk(&mut self, size: u32) -> Option<u32> {
        let number = self.free_chunks.pop().or_else(|| self.new_chunk())?;
        self.chunks[number as usize].size = size;
        self.partial[size as usize].insert(number);
        Some(number)
    }

    fn new_chunk(&mut self) -> Option<u32> {
        let number = u32::try_from(self.chunks.len()).ok().filter(|number| *number < self.chunk_limit)?;
        self.chunks.push(Chunk {
            size: 0,
            used: 0,
            generation: 0,
            owners: [Owner::Nobody; CHUNK_SLOTS as usize],
        });
        Some(number)
    }

    /// Gives a block back, of the size that it was taken with. Its words no longer name it.
    pub(super) fn release_block(&mut self, first: Slot, size: u32) {
        let (number, at) = (first.get() / CHUNK_SLOTS, first.get() % CHUNK_SLOTS);
        let Some(chunk) = self.chunks.get_mut(number as usize) else {
            return;
        };
        let bits = block_bits(at, size.min(CHUNK_BITS));
        for slot in set_bits(bits) {
            chunk.owners[slot as usize] = Owner::Nobody;
        }
        chunk.used &= !bits;
        let partial = &mut self.partial[chunk.size as usize];
        if chunk.generation == GENERATION_MAX {
            partial.remove(&number);
        } else if chunk.used == 0 {
            partial.remove(&number);
            self.free_chunks.push(number);
        } else {
            partial.insert(number);
        }
    }

    /// Takes a node: its number and generation.
    pub(super) fn take_node(&mut self) -> Option<(u32, u32)> {
        let number = self.free_nodes.pop().or_else(|| self.new_node())?;
        self.nodes[number as usize] += 1;
        Some((number, self.nodes[number as usize]))
    }

    fn new_node(&mut self) -> Option<u32> {
        let number = u32::try_from(self.nodes.len()).ok().filter(|number| *number < self.node_limit)?;
        self.nodes.push(0);
        Some(number)
    }

    /// Gives a node back. Its entries are cleared.
    pub(super) fn release_node(&mut self, number: u32) {
        if self.nodes.get(number as usize).is_some_and(|generation| *generation < GENERATION_MAX) {
            self.free_nodes.push(number);
        }
    }

    /// How many chunks there are once all is given back. Those that will soon be retired do not count.
    pub(super) fn usable_chunks(&self) -> u64 {
        let retired = self.chunks.iter().filter(|chunk| chunk.generation >= LAST_USES).count();
        u64::from(self.chunk_limit).saturating_sub(retired as u64)
    }

    /// As [`usable_chunks`](Self::usable_chunks), of nodes.
    pub(super) fn usable_nodes(&self) -> u64 {
        let retired = self.nodes.iter().filter(|generation| **generation >= LAST_USES).count();
        u64::from(self.node_limit).saturating_sub(retired as u64)
    }

    /// Whose a slot is.
    pub(super) fn owner(&self, slot: Slot) -> Owner {
        let chunk = self.chunks.get((slot.get() / CHUNK_SLOTS) as usize);
        chunk.map_or(Owner::Nobody, |chunk| chunk.owners[(slot.get() % CHUNK_SLOTS) as usize])
    }

    /// Notes whose a slot is.
    pub(super) fn set_owner(&mut self, slot: Slot, owner: Owner) {
        if let Some(chunk) = self.chunks.get_mut((slot.get() / CHUNK_SLOTS) as usize) {
            chunk.owners[(slot.get() % CHUNK_SLOTS) as usize] = owner;
        }
    }

    /// How many chunks were ever used: what a sweep goes through.
    pub(super) fn chunk_count(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX)
    }

    /// The slots of a chunk that somebody owns.
    pub(super) fn owned_slots(&self, chunk: u32) -> impl Iterator<Item = (Slot, Owner)> + use<> {
        let (used, owners) = match self.chunks.get(chunk as usize) {
            Some(found) => (found.used, found.owners),
            None => (0, [Owner::Nobody; CHUNK_SLOTS as usize]),
        };
        set_bits(used)
            .map(move |at| (Slot::new(chunk * CHUNK_SLOTS + at), owners[at as usize]))
            .filter(|(_, owner)| *owner != Owner::Nobody)
    }
}

impl Chunk {
    fn has_room(&self) -> bool {
        self.used != u32::MAX && self.generation < GENERATION_MAX
    }
}

const fn block_bits(at: u32, size: u32) -> u32 {
    let bits = if size >= CHUNK_BITS { u32::MAX } else { (1 << (1 << size)) - 1 };
    bits << at
}

fn set_bits(mut bits: u32) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let at = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(at)
    })
}
