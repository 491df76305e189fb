//! From an LPI to the entry of the event that is mapped to it. Of several events on one LPI, which
//! a guest should not map, only the count is known: a search for them visits every entry.

use super::entries::EntryIndex;
use crate::heap::{OutOfMemory, boxed};
use alloc::boxed::Box;
use doorbell_fallible::try_box_array;

/// LPIs of a page, as a power of two.
const PAGE_BITS: u32 = 10;
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;

/// The mapped entries of one LPI.
#[derive(Clone, Copy, Default)]
struct EntriesOfLpi {
    count: u32,
    /// The exclusive or of their numbers: the number, where there is one.
    numbers: u32,
}

/// Entries by LPI. Pages come with use; there are as many as the distributor's LPIs fill.
pub(super) struct EntriesByLpi {
    pages: Box<[Option<Box<[EntriesOfLpi; 1 << PAGE_BITS]>>]>,
}

/// The entries that an LPI is mapped in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum MappedAt {
    /// Nowhere.
    Nowhere,
    /// In this entry.
    One(EntryIndex),
    /// In several entries.
    Several,
}

impl MappedAt {
    /// The entry, if it is the only one.
    pub(super) const fn one(self) -> Option<EntryIndex> {
        match self {
            Self::One(index) => Some(index),
            Self::Nowhere | Self::Several => None,
        }
    }
}

impl EntriesByLpi {
    /// Of a distributor with this many LPIs.
    pub(super) fn new(lpis: u32) -> Result<Self, OutOfMemory> {
        let pages = lpis.div_ceil(1 << PAGE_BITS) as usize;
        Ok(Self { pages: boxed((0..pages).map(|_| None))? })
    }

    /// Makes sure that an LPI, by index, can be noted.
    pub(super) fn ensure(&mut self, lpi_index: u32) -> Result<(), OutOfMemory> {
        if let Some(page @ None) = self.pages.get_mut((lpi_index >> PAGE_BITS) as usize) {
            *page = Some(try_box_array(EntriesOfLpi::default)?);
        }
        Ok(())
    }

    /// An LPI, by index, is mapped in an entry. There [is](Self::ensure) room to note it.
    pub(super) fn insert(&mut self, lpi_index: u32, index: EntryIndex) {
        if let Some(Some(page)) = self.pages.get_mut((lpi_index >> PAGE_BITS) as usize) {
            let mapped = &mut page[(lpi_index & PAGE_MASK) as usize];
            mapped.count += 1;
            mapped.numbers ^= index.get();
        }
    }

    /// An LPI that was mapped in an entry is not any more.
    pub(super) fn remove(&mut self, lpi_index: u32, index: EntryIndex) {
        if let Some(Some(page)) = self.pages.get_mut((lpi_index >> PAGE_BITS) as usize) {
            let mapped = &mut page[(lpi_index & PAGE_MASK) as usize];
            mapped.count = mapped.count.saturating_sub(1);
            mapped.numbers ^= index.get();
        }
    }

    /// Finds the entries that an LPI, by index, is mapped in.
    pub(super) fn find(&self, lpi_index: u32) -> MappedAt {
        let page = self.pages.get((lpi_index >> PAGE_BITS) as usize).and_then(Option::as_ref);
        let mapped =
            page.map_or(EntriesOfLpi::default(), |page| page[(lpi_index & PAGE_MASK) as usize]);
        match mapped.count {
            0 => MappedAt::Nowhere,
            1 => MappedAt::One(EntryIndex::new(mapped.numbers)),
            _ => MappedAt::Several,
        }
    }
}
