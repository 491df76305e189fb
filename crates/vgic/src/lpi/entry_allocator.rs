//! Allocator for entries and ITT nodes, protected by the command lock. The allocator assigns their
//! generations, and never reuses a generation.
//!
//! Entries are allocated in chunks of 64. To let small devices share a chunk, a chunk is divided
//! into blocks of one size, from one entry to all 64. Once a chunk's last block is freed, the chunk
//! can be divided into blocks of another size. The generation is incremented each time a block or
//! node is allocated. A chunk or node that has reached the last generation is never used again.

use super::entry::GENERATION_MAX;
use super::entry_table::EntryIndex;
use super::itt::{CHUNK_BITS, CHUNK_ENTRIES};
use super::mapping::{ItsIndex, NoRoom};
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use doorbell_fallible::OutOfMemory;

const SIZES: usize = CHUNK_BITS as usize + 1;
/// Index of the list of chunks without blocks. The preceding lists contain the chunks that have
/// free blocks, indexed by block size.
const FREE: usize = SIZES;
/// Marker for "no chunk".
const NO_CHUNK: u32 = u32::MAX;

/// Stored value of [`Owner::Nobody`].
const NOBODY: u32 = u32::MAX;

/// An entry's owner.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// No owner. The entry has no mapped event, although its block may belong to a device.
    Nobody,
    /// The owner is an event of a device behind this ITS, in this collection.
    Event {
        /// The ITS.
        its: u16,
        /// The collection.
        collection: u16,
    },
}

impl Owner {
    /// Creates the owner for an event's entry.
    pub(super) const fn event(its: ItsIndex, collection: u16) -> Self {
        Self::Event { its: its.get(), collection }
    }

    /// Converts from a stored value.
    const fn from_bits(bits: u32) -> Self {
        match bits {
            NOBODY => Self::Nobody,
            _ => Self::Event { its: (bits >> 16) as u16, collection: (bits & 0xffff) as u16 },
        }
    }

    /// Converts to a stored value. An ITS with the highest number would have an event that looks
    /// like [`NOBODY`], but no [`ItsIndex`] has this number.
    const fn bits(self) -> u32 {
        match self {
            Self::Nobody => NOBODY,
            Self::Event { its, collection } => (its as u32) << 16 | collection as u32,
        }
    }
}

struct Chunk {
    /// Log2 of the size of the chunk's blocks.
    size: u32,
    /// One bit per entry in use.
    used: u64,
    generation: u32,
    /// Written by a thread that holds the command lock alone, or the lock of the entry's LPI.
    owners: [AtomicU32; CHUNK_ENTRIES as usize],
    list: Option<usize>,
    /// The chunk's neighbors in that list.
    previous: u32,
    next: u32,
}

/// A block of 2^n entries, at most a whole chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Block {
    /// First entry.
    pub(super) first: EntryIndex,
    /// Generation of this allocation, starting at 1.
    pub(super) generation: u32,
}

/// Allocator for chunks and nodes.
pub(super) struct EntryAllocator {
    chunks: Vec<Chunk>,
    chunk_limit: u32,
    /// First chunk in each list.
    lists: [u32; SIZES + 1],
    /// Generation of each node.
    nodes: Vec<u32>,
    node_limit: u32,
    /// Numbers of free nodes. Has capacity for all nodes.
    free_nodes: Vec<u32>,
}

impl EntryAllocator {
    pub(super) fn new(chunk_limit: u32, node_limit: u32) -> Self {
        Self {
            chunks: Vec::new(),
            chunk_limit,
            lists: [NO_CHUNK; SIZES + 1],
            nodes: Vec::new(),
            node_limit,
            free_nodes: Vec::new(),
        }
    }

    /// Allocates `2^size` entries, at most a chunk. For a new chunk, calls `provide` with the
    /// chunk's first entry to allocate the memory for the chunk's entries.
    pub(super) fn take_block(
        &mut self,
        size: u32,
        provide: impl FnOnce(EntryIndex) -> Result<(), OutOfMemory>,
    ) -> Result<Block, NoRoom> {
        let size = size.min(CHUNK_BITS);
        let number = match self.lists[size as usize] {
            NO_CHUNK => self.open_chunk(size, provide)?,
            number => number,
        };
        let chunk = self.chunks.get_mut(number as usize).ok_or(NoRoom::Budget)?;
        let free = (0..CHUNK_ENTRIES).step_by(1 << size).find(|at| chunk.used & (1 << at) == 0);
        let at = free.ok_or(NoRoom::Budget)?;
        chunk.used |= block_bits(at, size);
        chunk.generation += 1;
        let (generation, has_room) = (chunk.generation, chunk.has_room());
        if !has_room {
            self.file(number, None);
        }
        Ok(Block { first: EntryIndex::new(number * CHUNK_ENTRIES + at), generation })
    }

    fn open_chunk(
        &mut self,
        size: u32,
        provide: impl FnOnce(EntryIndex) -> Result<(), OutOfMemory>,
    ) -> Result<u32, NoRoom> {
        let number = match self.lists[FREE] {
            NO_CHUNK => self.new_chunk(provide)?,
            number => number,
        };
        self.chunks[number as usize].size = size;
        self.file(number, Some(size as usize));
        Ok(number)
    }

    fn new_chunk(
        &mut self,
        provide: impl FnOnce(EntryIndex) -> Result<(), OutOfMemory>,
    ) -> Result<u32, NoRoom> {
        let number =
            u32::try_from(self.chunks.len()).ok().filter(|number| *number < self.chunk_limit);
        let number = number.ok_or(NoRoom::Budget)?;
        self.chunks.try_reserve(1).map_err(OutOfMemory::from)?;
        provide(EntryIndex::new(number * CHUNK_ENTRIES))?;
        self.chunks.push(Chunk {
            size: 0,
            used: 0,
            generation: 0,
            owners: [const { AtomicU32::new(NOBODY) }; CHUNK_ENTRIES as usize],
            list: None,
            previous: NO_CHUNK,
            next: NO_CHUNK,
        });
        Ok(number)
    }

    /// Moves a chunk to the front of a list, or removes it from its list.
    fn file(&mut self, number: u32, list: Option<usize>) {
        let Some(chunk) = self.chunks.get_mut(number as usize) else { return };
        if chunk.list == list {
            return;
        }
        let (old, previous, next) = (chunk.list, chunk.previous, chunk.next);
        let first = list.map_or(NO_CHUNK, |list| self.lists[list]);
        (chunk.list, chunk.previous, chunk.next) = (list, NO_CHUNK, first);
        if let Some(old) = old {
            match self.chunks.get_mut(previous as usize) {
                Some(previous) => previous.next = next,
                None => self.lists[old] = next,
            }
            if let Some(next) = self.chunks.get_mut(next as usize) {
                next.previous = previous;
            }
        }
        if let Some(list) = list {
            if let Some(first) = self.chunks.get_mut(first as usize) {
                first.previous = number;
            }
            self.lists[list] = number;
        }
    }

    /// Frees a block. `size` must be the size with which the block was allocated, and no links to
    /// its entries may remain.
    pub(super) fn release_block(&mut self, first: EntryIndex, size: u32) {
        let (number, at) = (first.get() / CHUNK_ENTRIES, first.get() % CHUNK_ENTRIES);
        let Some(chunk) = self.chunks.get_mut(number as usize) else {
            return;
        };
        let bits = block_bits(at, size.min(CHUNK_BITS));
        for index in set_bits(bits) {
            *chunk.owners[index as usize].get_mut() = NOBODY;
        }
        chunk.used &= !bits;
        let list = match (chunk.generation, chunk.used) {
            (GENERATION_MAX, _) => None,
            (_, 0) => Some(FREE),
            _ => Some(chunk.size as usize),
        };
        self.file(number, list);
    }

    /// Allocates a node and returns its number and generation. For a new node, calls `provide` to
    /// allocate the memory for its links.
    pub(super) fn take_node(
        &mut self,
        provide: impl FnOnce(u32) -> Result<(), OutOfMemory>,
    ) -> Result<(u32, u32), NoRoom> {
        let number = match self.free_nodes.pop() {
            Some(number) => number,
            None => self.new_node(provide)?,
        };
        self.nodes[number as usize] += 1;
        Ok((number, self.nodes[number as usize]))
    }

    fn new_node(
        &mut self,
        provide: impl FnOnce(u32) -> Result<(), OutOfMemory>,
    ) -> Result<u32, NoRoom> {
        let number =
            u32::try_from(self.nodes.len()).ok().filter(|number| *number < self.node_limit);
        let number = number.ok_or(NoRoom::Budget)?;
        self.nodes.try_reserve(1).map_err(OutOfMemory::from)?;
        let given_back = self.nodes.len() + 1 - self.free_nodes.len();
        self.free_nodes.try_reserve(given_back).map_err(OutOfMemory::from)?;
        provide(number)?;
        self.nodes.push(0);
        Ok(number)
    }

    /// Frees a node. The node's links must be cleared.
    pub(super) fn release_node(&mut self, number: u32) {
        if self.nodes.get(number as usize).is_some_and(|generation| *generation < GENERATION_MAX) {
            self.free_nodes.push(number);
        }
    }

    fn owner_of(&self, index: EntryIndex) -> Option<&AtomicU32> {
        let chunk = self.chunks.get((index.get() / CHUNK_ENTRIES) as usize)?;
        Some(&chunk.owners[(index.get() % CHUNK_ENTRIES) as usize])
    }

    /// Returns an entry's owner.
    pub(super) fn owner(&self, index: EntryIndex) -> Owner {
        let owner = self.owner_of(index);
        owner.map_or(Owner::Nobody, |owner| Owner::from_bits(owner.load(SeqCst)))
    }

    /// Sets an entry's owner.
    pub(super) fn set_owner(&self, index: EntryIndex, owner: Owner) {
        if let Some(place) = self.owner_of(index) {
            place.store(owner.bits(), SeqCst);
        }
    }

    /// Sets the owner of entries in one chunk.
    pub(super) fn set_owners(&mut self, first: EntryIndex, count: u32, owner: Owner) {
        let (chunk, at) = (first.get() / CHUNK_ENTRIES, first.get() % CHUNK_ENTRIES);
        if let Some(chunk) = self.chunks.get_mut(chunk as usize) {
            let owners = chunk.owners.get_mut(at as usize..(at + count) as usize);
            owners.into_iter().flatten().for_each(|place| *place.get_mut() = owner.bits());
        }
    }

    /// Returns the number of chunks ever used. A sweep visits all of these chunks.
    pub(super) fn chunk_count(&self) -> u32 {
        u32::try_from(self.chunks.len()).unwrap_or(u32::MAX)
    }

    /// Returns the entries in a chunk's blocks, with or without an owner.
    pub(super) fn entries_in_use(&self, chunk: u32) -> impl Iterator<Item = EntryIndex> + use<> {
        let used = self.chunks.get(chunk as usize).map_or(0, |found| found.used);
        set_bits(used).map(move |at| EntryIndex::new(chunk * CHUNK_ENTRIES + at))
    }
}

impl Chunk {
    fn has_room(&self) -> bool {
        self.used != u64::MAX && self.generation < GENERATION_MAX
    }
}

const fn block_bits(at: u32, size: u32) -> u64 {
    let bits = if size >= CHUNK_BITS { u64::MAX } else { (1 << (1 << size)) - 1 };
    bits << at
}

fn set_bits(mut bits: u64) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let at = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits - 1;
        Some(at)
    })
}
