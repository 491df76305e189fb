//! Table of translation entries. The table is type-stable: once allocated, a page lives as long as
//! the table.

use super::entry::Entry;
use crate::sync::{AtomicU64, Ordering};
use alloc::boxed::Box;
use doorbell_fallible::{OnceBox, OutOfMemory, try_page, try_page_table};

/// Log2 of the number of entries on an 8 KiB page.
const PAGE_BITS: u32 = 10;
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;
/// Log2 of the distance in entries between adjacent indices: 128 bytes.
const STRIDE_BITS: u32 = 4;
const ROW_MASK: u32 = (1 << STRIDE_BITS) - 1;
/// Log2 of the number of entries that are spread over a page in this way, i.e. the entries in a
/// chunk.
pub(super) const SPREAD_BITS: u32 = PAGE_BITS - STRIDE_BITS;
/// Log2 of the number of pages over which the first chunks are spread: see [`Position`].
const SHARED_PAGE_BITS: u32 = 6;
/// Number of entries in the chunks that are spread over pages. Tables have at least as many
/// positions.
pub(super) const SPREAD_ENTRIES: u32 = 1 << (SHARED_PAGE_BITS + PAGE_BITS);

/// An entry's index, as numbered by the allocator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EntryIndex(u32);

/// Position of an entry, from which the place of its ready bits follows. Two rules keep entries
/// apart that different vCPUs may write:
///
/// - A row of 16 entries, 128 bytes, holds the same entry of 16 chunks. So the vectors of a device
///   share a page, but no two in a chunk share a cache line.
/// - The first 1024 chunks are spread over 64 pages, at first two on each, 64 bytes apart. So the
///   first 8192 entries have a cache line each. The pages fill up with the following chunks, at
///   most 512 KiB in total. Later chunks fill page by page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position(u32);

impl EntryIndex {
    /// Creates the index with this number.
    pub(super) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub(super) const fn get(self) -> u32 {
        self.0
    }

    /// Returns the index `offset` entries after this one.
    pub(super) const fn offset(self, offset: u32) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    /// Returns the entry's position.
    pub(super) const fn position(self) -> Position {
        let (chunk, entry) = (self.0 >> SPREAD_BITS, self.0 & ((1 << SPREAD_BITS) - 1));
        let (page, column) = if self.0 < SPREAD_ENTRIES {
            let (pair, half) = (chunk >> 1, chunk & 1);
            let round = pair >> SHARED_PAGE_BITS;
            (pair & ((1 << SHARED_PAGE_BITS) - 1), reversed(round << 1 | half))
        } else {
            (chunk >> STRIDE_BITS, chunk & ROW_MASK)
        };
        Position(page << PAGE_BITS | entry << STRIDE_BITS | column)
    }
}

/// Reverses the bits of a column's number, so that successive columns are far apart.
const fn reversed(column: u32) -> u32 {
    column.reverse_bits() >> (u32::BITS - STRIDE_BITS)
}

impl Position {
    /// Creates the position with this number.
    pub(super) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// Returns the number.
    pub(super) const fn get(self) -> u32 {
        self.0
    }

    /// Returns the position of the entry `offset` indices after this one, in the same chunk.
    #[inline]
    pub(super) const fn offset_in_chunk(self, offset: u32) -> Self {
        Self(self.0.wrapping_add(offset << STRIDE_BITS))
    }

    /// Returns the index of the entry at this position.
    pub(super) const fn index(self) -> EntryIndex {
        let (page, column) = (self.0 >> PAGE_BITS, self.0 & ROW_MASK);
        let entry = (self.0 & PAGE_MASK) >> STRIDE_BITS;
        let chunk = if self.0 < SPREAD_ENTRIES {
            let (round, half) = (reversed(column) >> 1, reversed(column) & 1);
            (round << SHARED_PAGE_BITS | page) << 1 | half
        } else {
            page << STRIDE_BITS | column
        };
        EntryIndex(chunk << SPREAD_BITS | entry)
    }
}

/// A page of entries, whose rows are pairs of cache lines.
#[repr(align(128))]
struct EntryPage([AtomicU64; 1 << PAGE_BITS]);

/// Returns the entry at this position, on its page.
#[inline]
fn on_page([page]: &[EntryPage; 1], position: Position) -> &AtomicU64 {
    &page.0[(position.get() & PAGE_MASK) as usize]
}

/// Pages of entries.
pub(super) struct EntryTable {
    pages: Box<[OnceBox<[EntryPage; 1]>]>,
}

impl EntryTable {
    /// Creates a table for this many positions. Pages are allocated by [`ensure`](Self::ensure).
    pub(super) fn new(positions: u32) -> Result<Self, OutOfMemory> {
        Ok(Self { pages: try_page_table(positions.div_ceil(1 << PAGE_BITS))? })
    }

    /// Allocates the page for the entry at `index`, if necessary. Must not be called on the hot
    /// path.
    pub(super) fn ensure(&self, index: EntryIndex) -> Result<(), OutOfMemory> {
        match self.pages.get((index.position().get() >> PAGE_BITS) as usize) {
            Some(page) => {
                let empty = || EntryPage([const { AtomicU64::new(0) }; 1 << PAGE_BITS]);
                Ok(try_page(page, empty)?)
            }
            None => Ok(()),
        }
    }

    /// Returns the entry at `position`, or `None` if its page was never allocated.
    #[inline]
    pub(super) fn entry(&self, position: Position) -> Option<&AtomicU64> {
        let page = self.pages.get((position.get() >> PAGE_BITS) as usize)?.get()?;
        Some(on_page(page, position))
    }

    /// Stores values in the entries of a block, from this position on. The block lies within a
    /// chunk, i.e. on one page. No other thread may be able to write the entries: they admit no
    /// message, are in no list register, and the caller holds the command lock.
    #[inline]
    pub(super) fn store(&self, first: Position, values: impl Iterator<Item = Entry>) {
        let page = self.pages.get((first.get() >> PAGE_BITS) as usize).and_then(OnceBox::get);
        let Some(page) = page else { return };
        let mut position = first;
        values.for_each(|value| {
            on_page(page, position).store(value.bits(), Ordering::SeqCst);
            position = position.offset_in_chunk(1);
        });
    }

    /// Loads the entry at `position`, or an unmapped entry if its page was never allocated.
    #[inline]
    pub(super) fn load(&self, position: Position) -> Entry {
        self.entry(position)
            .map_or(Entry::unmapped(0), |entry| Entry::from_bits(entry.load(Ordering::SeqCst)))
    }

    /// Replaces the entry at `position` with the result of `change`, in one read-modify-write.
    /// Returns the old value, or `None` if `change` returned `None`.
    ///
    #[inline]
    pub(super) fn try_update(
        &self,
        position: Position,
        change: impl Fn(Entry) -> Option<Entry>,
    ) -> Option<Entry> {
        let atomic = self.entry(position)?;
        let mut old = Entry::from_bits(atomic.load(Ordering::SeqCst));
        loop {
            let new = change(old)?;
            match atomic.compare_exchange(
                old.bits(),
                new.bits(),
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return Some(old),
                Err(seen) => old = Entry::from_bits(seen),
            }
        }
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeSet;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entry_indices_and_positions_round_trip(number in 0..2 * SPREAD_ENTRIES) {
            let index = EntryIndex::new(number);
            prop_assert_eq!(index.position().index(), index);
            prop_assert_eq!(number < SPREAD_ENTRIES, index.position().get() < SPREAD_ENTRIES);
        }
    }

    /// Returns the numbers of the cache lines that entries lie on.
    fn lines(table: &EntryTable, entries: core::ops::Range<u32>) -> BTreeSet<usize> {
        let address = |number| {
            let index = EntryIndex::new(number);
            table.ensure(index).unwrap();
            core::ptr::from_ref(table.entry(index.position()).unwrap()).addr()
        };
        entries.map(|number| address(number) / 64).collect()
    }

    #[test]
    fn the_first_entries_have_a_cache_line_each() {
        let table = EntryTable::new(SPREAD_ENTRIES).unwrap();
        let first = 2 << (SHARED_PAGE_BITS + SPREAD_BITS);
        assert_eq!(lines(&table, 0..first).len(), first as usize);
        // The entries of a chunk never share a line.
        for chunk in (first..SPREAD_ENTRIES).step_by(1 << SPREAD_BITS) {
            assert_eq!(lines(&table, chunk..chunk + (1 << SPREAD_BITS)).len(), 1 << SPREAD_BITS);
        }
        assert_eq!(table.pages.iter().filter(|page| page.get().is_some()).count(), 64);
    }
}
