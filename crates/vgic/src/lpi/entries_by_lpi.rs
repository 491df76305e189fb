//! For each LPI, a doubly linked list of the entries that are mapped to it. Insertion and removal
//! take constant time.

use super::entry_table::EntryIndex;
use crate::sync::{AtomicU32, Ordering::SeqCst};
use alloc::boxed::Box;
use core::ops::Range;
use doorbell_fallible::{OutOfMemory, try_box_array, try_boxed_slice};

/// Log2 of the number of LPIs or entries on a page.
const PAGE_BITS: u32 = 10;
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;

/// Table whose pages are allocated on first use.
struct Paged<T> {
    pages: Box<[Option<Box<[T; 1 << PAGE_BITS]>>]>,
}

/// An entry's neighbors in its LPI's list. An entry in no list has none.
#[derive(Clone, Copy, Default)]
struct Neighbors {
    previous: Option<EntryNumber>,
    next: Option<EntryNumber>,
}

/// Entry number plus one; nonzero, so that an `Option` of it needs no extra space.
type EntryNumber = core::num::NonZeroU32;

/// Lists of entries, by LPI.
pub(super) struct EntriesByLpi {
    /// [`EntryNumber`] of the entry inserted last, or 0, indexed by LPI. Written by a thread that
    /// holds the command lock alone, or the LPI's lock.
    first: Paged<AtomicU32>,
    /// Neighbors in the list, indexed by entry.
    neighbors: Paged<Neighbors>,
}

fn number(index: EntryIndex) -> Option<EntryNumber> {
    EntryNumber::new(index.get().wrapping_add(1))
}

fn index(number: EntryNumber) -> EntryIndex {
    EntryIndex::new(number.get() - 1)
}

/// Returns the value of an element of [`EntriesByLpi::first`].
const fn head(number: Option<EntryNumber>) -> u32 {
    match number {
        Some(number) => number.get(),
        None => 0,
    }
}

impl<T: Default> Paged<T> {
    fn new(len: u32) -> Result<Self, OutOfMemory> {
        let pages = len.div_ceil(1 << PAGE_BITS) as usize;
        Ok(Self { pages: try_boxed_slice((0..pages).map(|_| None))? })
    }

    fn ensure(&mut self, at: u32) -> Result<(), OutOfMemory> {
        if let Some(page @ None) = self.pages.get_mut((at >> PAGE_BITS) as usize) {
            *page = Some(try_box_array(T::default)?);
        }
        Ok(())
    }

    /// Returns an element, or `None` if its page is not allocated.
    fn at(&self, at: u32) -> Option<&T> {
        let page = self.pages.get((at >> PAGE_BITS) as usize)?.as_ref()?;
        Some(&page[(at & PAGE_MASK) as usize])
    }

    /// Returns an element like [`at`](Self::at), for a change.
    fn at_mut(&mut self, at: u32) -> Option<&mut T> {
        let page = self.pages.get_mut((at >> PAGE_BITS) as usize)?.as_mut()?;
        Some(&mut page[(at & PAGE_MASK) as usize])
    }

    /// Returns consecutive elements, or `None` if they are not all on one allocated page.
    fn part(&mut self, at: u32, len: usize) -> Option<&mut [T]> {
        let page = self.pages.get_mut((at >> PAGE_BITS) as usize)?.as_mut()?;
        let start = (at & PAGE_MASK) as usize;
        page.get_mut(start..start + len)
    }
}

impl EntriesByLpi {
    /// Creates the lists for a distributor with this many LPIs, and a budget of this many entries.
    pub(super) fn new(lpis: u32, entries: u32) -> Result<Self, OutOfMemory> {
        Ok(Self { first: Paged::new(lpis)?, neighbors: Paged::new(entries)? })
    }

    /// Allocates the memory for inserting entries into the lists of the LPIs with these indices.
    pub(super) fn ensure(&mut self, lpi_indices: Range<u32>) -> Result<(), OutOfMemory> {
        let Some(last) = lpi_indices.clone().next_back() else { return Ok(()) };
        let pages = lpi_indices.start >> PAGE_BITS..=last >> PAGE_BITS;
        pages.into_iter().try_for_each(|page| self.first.ensure(page << PAGE_BITS))
    }

    /// Allocates the memory for inserting the entries in the chunk that contains `index`.
    pub(super) fn ensure_chunk(&mut self, index: EntryIndex) -> Result<(), OutOfMemory> {
        self.neighbors.ensure(index.get())
    }

    /// Inserts an entry into the list of the LPI with this index. The memory must have been
    /// [allocated](Self::ensure).
    pub(super) fn insert(&mut self, lpi_index: u32, index: EntryIndex) {
        let Some(first) = self.first.at_mut(lpi_index).map(AtomicU32::get_mut) else { return };
        let next = EntryNumber::new(core::mem::replace(first, head(number(index))));
        self.change(number(index), |_| Neighbors { previous: None, next });
        self.change(next, |neighbors| Neighbors { previous: number(index), ..neighbors });
    }

    /// Inserts an entry like [`insert`](Self::insert) if the list is empty, for a thread that holds
    /// the LPI's lock. Returns `false` if the list is not empty, or has no memory.
    pub(super) fn insert_only(&self, lpi_index: u32, index: EntryIndex) -> bool {
        let first = self.first.at(lpi_index).filter(|first| first.load(SeqCst) == 0);
        first.inspect(|first| first.store(head(number(index)), SeqCst)).is_some()
    }

    /// Removes an entry if it is the only one in the list, for a thread that holds the LPI's lock.
    /// Returns `false` if it is not.
    pub(super) fn remove_only(&self, lpi_index: u32, index: EntryIndex) -> bool {
        let first = self.first.at(lpi_index).filter(|_| self.only(lpi_index) == Some(index));
        first.inspect(|first| first.store(0, SeqCst)).is_some()
    }

    /// Inserts consecutive entries of a chunk, from `first` on, into the lists of the LPIs with
    /// these indices. The memory must have been [allocated](Self::ensure).
    pub(super) fn insert_all(&mut self, lpi_indices: Range<u32>, first: EntryIndex) {
        if lpi_indices.len() > 1
            && self.insert_into_empty_lists(lpi_indices.clone(), first).is_some()
        {
            return;
        }
        (0..).zip(lpi_indices).for_each(|(at, lpi_index)| self.insert(lpi_index, first.offset(at)));
    }

    /// Inserts the entries if all lists are empty, and the LPIs are on one page.
    fn insert_into_empty_lists(
        &mut self,
        lpi_indices: Range<u32>,
        first: EntryIndex,
    ) -> Option<()> {
        let heads = self.first.part(lpi_indices.start, lpi_indices.len())?;
        if heads.iter_mut().any(|head| *head.get_mut() != 0) {
            return None;
        }
        for (offset, first_of) in (0..).zip(heads) {
            *first_of.get_mut() = head(number(first.offset(offset)));
        }
        Some(())
    }

    /// Removes an entry from the list of the LPI with this index.
    pub(super) fn remove(&mut self, lpi_index: u32, index: EntryIndex) {
        let Neighbors { previous, next } = self.neighbors_of(index);
        self.change(number(index), |_| Neighbors::default());
        self.change(next, |neighbors| Neighbors { previous, ..neighbors });
        if previous.is_some() {
            self.change(previous, |neighbors| Neighbors { next, ..neighbors });
        } else if let Some(first) = self.first.at_mut(lpi_index) {
            *first.get_mut() = head(next);
        }
    }

    fn change(&mut self, of: Option<EntryNumber>, to: impl FnOnce(Neighbors) -> Neighbors) {
        if let Some(neighbors) = of.and_then(|of| self.neighbors.at_mut(index(of).get())) {
            *neighbors = to(*neighbors);
        }
    }

    fn neighbors_of(&self, entry: EntryIndex) -> Neighbors {
        self.neighbors.at(entry.get()).copied().unwrap_or_default()
    }

    /// Returns the first entry in the list of the LPI with this index, i.e. the entry inserted
    /// last.
    pub(super) fn first(&self, lpi_index: u32) -> Option<EntryIndex> {
        EntryNumber::new(self.first.at(lpi_index)?.load(SeqCst)).map(index)
    }

    /// Returns the entry after this one in its LPI's list.
    pub(super) fn after(&self, entry: EntryIndex) -> Option<EntryIndex> {
        self.neighbors_of(entry).next.map(index)
    }

    /// Returns `true` if an entry isn't the only one in its LPI's list.
    pub(super) fn has_neighbors(&self, entry: EntryIndex) -> bool {
        let Neighbors { previous, next } = self.neighbors_of(entry);
        previous.or(next).is_some()
    }

    /// Returns the entry in the list of the LPI with this index, if it is the only entry.
    pub(super) fn only(&self, lpi_index: u32) -> Option<EntryIndex> {
        self.first(lpi_index).filter(|first| self.after(*first).is_none())
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn all(by_lpi: &EntriesByLpi, lpi: u32) -> Vec<u32> {
        let entries = core::iter::successors(by_lpi.first(lpi), |entry| by_lpi.after(*entry));
        entries.map(EntryIndex::get).collect()
    }

    proptest! {
        #[test]
        fn each_lpi_lists_exactly_its_inserted_entries(
            steps in proptest::collection::vec((0u32..3, 0u32..8, 1u32..4), 0..60),
        ) {
            // The numbers of the LPIs and of the entries cross a page boundary.
            let (lpi_of, entry_of) = (|lpi| 1022 + lpi, |entry| 1020 + entry);
            let mut by_lpi = EntriesByLpi::new(2048, 2048).unwrap();
            by_lpi.ensure(lpi_of(0)..lpi_of(3)).unwrap();
            (0..8).for_each(|entry| by_lpi.ensure_chunk(EntryIndex::new(entry_of(entry))).unwrap());
            let mut model = [const { Vec::new() }; 3];
            for (lpi, entry, count) in steps {
                let count = count.min(3 - lpi).min(8 - entry);
                let mut entries = entry_of(entry)..entry_of(entry + count);
                if entries.clone().all(|entry| model.iter().all(|owned| !owned.contains(&entry))) {
                    let lpis = lpi_of(lpi)..lpi_of(lpi + count);
                    by_lpi.insert_all(lpis, EntryIndex::new(entries.start));
                    for owned in &mut model[lpi as usize..(lpi + count) as usize] {
                        owned.insert(0, entries.next().unwrap());
                    }
                } else {
                    let index = EntryIndex::new(entry_of(entry));
                    let is_owner = |entries: &Vec<u32>| entries.contains(&index.get());
                    let owner = model.iter().position(is_owner);
                    if let Some(owner) = owner {
                        let lpi = lpi_of(u32::try_from(owner).unwrap());
                        let is_only = model[owner] == [index.get()];
                        prop_assert_eq!(by_lpi.remove_only(lpi, index), is_only);
                        if !is_only {
                            by_lpi.remove(lpi, index);
                        }
                        model[owner].retain(|entry| *entry != index.get());
                    }
                    if owner != Some(lpi as usize) {
                        let is_only = model[lpi as usize].is_empty();
                        prop_assert_eq!(by_lpi.insert_only(lpi_of(lpi), index), is_only);
                        if !is_only {
                            by_lpi.insert(lpi_of(lpi), index);
                        }
                        model[lpi as usize].insert(0, index.get());
                    }
                }
                for (lpi, entries) in (0..).zip(&model) {
                    prop_assert_eq!(&all(&by_lpi, lpi_of(lpi)), entries);
                    let only = entries.first().filter(|_| entries.len() == 1);
                    let found = by_lpi.only(lpi_of(lpi)).map(EntryIndex::get);
                    prop_assert_eq!(found, only.copied());
                }
            }
        }
    }
}
