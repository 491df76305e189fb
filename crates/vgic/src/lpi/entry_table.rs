//! Table of translation entries. The table is type-stable: once allocated, a page lives as long as
//! the table.

use super::entry::Entry;
use crate::sync::{AtomicU64, Ordering};
use alloc::boxed::Box;
use doorbell_fallible::{OnceBox, OutOfMemory, try_page, try_page_table};

/// Log2 of the number of entries on a 4 KiB page.
const PAGE_BITS: u32 = 9;
const PAGE_ENTRIES: usize = 1 << PAGE_BITS;
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;
/// Log2 of the distance in entries between adjacent indices: 128 bytes.
const STRIDE_BITS: u32 = 4;
/// Log2 of the number of entries that are spread over a page in this way, i.e. the entries in a
/// chunk.
pub(super) const SPREAD_BITS: u32 = PAGE_BITS - STRIDE_BITS;

/// An entry's index, as numbered by the allocator.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EntryIndex(u32);

/// Position of an entry, from which the place of its ready bits follows: the entry's index with the
/// low nine bits rotated. The rotation lets one device's vectors share a page but not a cache line.
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
        let low = self.0 & PAGE_MASK;
        let rotated = ((low << STRIDE_BITS) | (low >> (PAGE_BITS - STRIDE_BITS))) & PAGE_MASK;
        Position((self.0 & !PAGE_MASK) | rotated)
    }
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
        let low = self.0 & PAGE_MASK;
        let number = ((low >> STRIDE_BITS) | (low << (PAGE_BITS - STRIDE_BITS))) & PAGE_MASK;
        EntryIndex((self.0 & !PAGE_MASK) | number)
    }
}

type EntryPage = [AtomicU64; PAGE_ENTRIES];

/// Pages of entries.
pub(super) struct EntryTable {
    pages: Box<[OnceBox<EntryPage>]>,
}

impl EntryTable {
    /// Creates a table for up to `entries` entries. Pages are allocated by
    /// [`ensure`](Self::ensure).
    pub(super) fn new(entries: u32) -> Result<Self, OutOfMemory> {
        Ok(Self { pages: try_page_table(entries.div_ceil(1 << PAGE_BITS))? })
    }

    /// Allocates the page for the entry at `index`, if necessary. Must not be called on the hot
    /// path.
    pub(super) fn ensure(&self, index: EntryIndex) -> Result<(), OutOfMemory> {
        match self.pages.get((index.get() >> PAGE_BITS) as usize) {
            Some(page) => Ok(try_page(page, || AtomicU64::new(0))?),
            None => Ok(()),
        }
    }

    /// Returns the entry at `position`, or `None` if its page was never allocated.
    #[inline]
    pub(super) fn entry(&self, position: Position) -> Option<&AtomicU64> {
        let page = self.pages.get((position.get() >> PAGE_BITS) as usize)?.get()?;
        Some(&page[(position.get() & PAGE_MASK) as usize])
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
            let entry = &page[(position.get() & PAGE_MASK) as usize];
            entry.store(value.bits(), Ordering::SeqCst);
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
