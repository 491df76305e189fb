//! LPIs that are pending at a redistributor without an event: LPIs signaled through `GICR_SETLPIR`,
//! moved by MOVALL, or set in the pending table. Each redistributor has a flat table with an entry
//! for each LPI. An entry doesn't store its target and LPI, because its position in the table
//! implies both.
//!
//! Pages are allocated on the command path. With direct LPIs, `EnableLPIs` allocates all pages that
//! the guest's tables cover, so that a message always finds its entry and doesn't allocate. Pages
//! are only freed together with the table.

use super::entry::Entry;
use crate::sync::published::Published;
use crate::sync::{AtomicU16, Ordering::SeqCst};
use alloc::boxed::Box;
use doorbell_fallible::{OnceBox, OutOfMemory, try_page, try_page_table};
use gic_arch::Lpi;

/// Log2 of the number of LPIs on a page. Pages are smaller in model checks, where each access is a
/// step.
const PAGE_BITS: u32 = if cfg!(all(test, shuttle)) { 3 } else { 12 };
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;
/// Number of LPIs in an [`LpiBlock`].
pub(super) const BLOCK: u32 = if PAGE_BITS < 6 { 1 << PAGE_BITS } else { 64 };

type LpiPage = [AtomicU16; 1 << PAGE_BITS];

/// One redistributor's entries.
pub(super) struct RedistributorLpis {
    vcpu: u32,
    pages: Box<[OnceBox<LpiPage>]>,
    /// First INTID beyond the guest's tables; 0 while LPIs are disabled, and 1 if there is no
    /// configuration table. Only used to report why a message was dropped.
    pub(super) end: Published,
}

impl RedistributorLpis {
    /// Creates a table for a redistributor with this many LPIs. Pages are allocated by
    /// [`ensure`](Self::ensure).
    pub(super) fn new(vcpu: u32, lpis: u32) -> Result<Self, OutOfMemory> {
        let pages = try_page_table(lpis.div_ceil(1 << PAGE_BITS))?;
        Ok(Self { vcpu, pages, end: Published::new(0) })
    }

    /// Allocates an LPI's entry, if necessary. Must not be called on the hot path.
    pub(super) fn ensure(&self, lpi: Lpi) -> Result<(), OutOfMemory> {
        match self.pages.get((lpi.index() >> PAGE_BITS) as usize) {
            Some(page) => Ok(try_page(page, || AtomicU16::new(0))?),
            None => Ok(()),
        }
    }

    /// Allocates entries for all LPIs below INTID `end`. Must not be called on the hot path.
    pub(super) fn ensure_below(&self, end: u32) -> Result<(), OutOfMemory> {
        let mut pages = (Lpi::FIRST.get()..end).step_by(1 << PAGE_BITS);
        pages.try_for_each(|intid| Lpi::try_from(intid).map_or(Ok(()), |lpi| self.ensure(lpi)))
    }

    #[inline]
    fn entry(&self, index: u32) -> Option<&AtomicU16> {
        let page = self.pages.get((index >> PAGE_BITS) as usize)?.get()?;
        Some(&page[(index & PAGE_MASK) as usize])
    }

    const fn expand(&self, index: u32, bits: u16) -> Entry {
        Entry::expanded(bits, self.vcpu, index)
    }

    /// Returns `true` if the LPI with this index has an entry.
    pub(super) fn has(&self, index: u32) -> bool {
        self.entry(index).is_some()
    }

    /// Loads the entry of the LPI with this index, or an empty entry if it has none.
    #[inline]
    pub(super) fn load(&self, index: u32) -> Entry {
        self.expand(index, self.entry(index).map_or(0, |entry| entry.load(SeqCst)))
    }

    /// Replaces an entry with the result of `change`, in one read-modify-write. Returns the old
    /// value, or `None` if `change` returned `None`.
    #[inline]
    pub(super) fn try_update(
        &self,
        index: u32,
        change: impl Fn(Entry) -> Option<Entry>,
    ) -> Option<Entry> {
        let atomic = self.entry(index)?;
        let mut old = atomic.load(SeqCst);
        loop {
            let new = change(self.expand(index, old))?.compact();
            match atomic.compare_exchange(old, new, SeqCst, SeqCst) {
                Ok(_) => return Some(self.expand(index, old)),
                Err(seen) => old = seen,
            }
        }
    }

    /// Returns the first block with entries at or after this LPI index.
    pub(super) fn block_from(&self, index: u32) -> Option<LpiBlock> {
        let mut pages = self.pages.iter().zip(0u32..).skip((index >> PAGE_BITS) as usize);
        let (_, page) = pages.find(|(page, _)| page.get().is_some())?;
        Some(LpiBlock { first: index.max(page << PAGE_BITS) })
    }

    /// Returns all entries, in LPI order.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry> {
        let pages = self.pages.iter().zip((0..).step_by(1 << PAGE_BITS));
        let pages = pages.filter_map(|(page, first)| Some((page.get()?, first)));
        pages.flat_map(|(page, first)| {
            let entries = page.iter().zip(first..);
            entries.map(|(entry, index)| self.expand(index, entry.load(SeqCst)))
        })
    }

    /// Returns all blocks with entries.
    pub(super) fn blocks(&self) -> impl Iterator<Item = LpiBlock> {
        core::iter::successors(self.block_from(0), |block| self.block_from(block.next()))
    }
}

/// [`BLOCK`] consecutive LPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LpiBlock {
    first: u32,
}

impl LpiBlock {
    /// Returns the LPI index at which the next block begins.
    pub(super) const fn next(self) -> u32 {
        self.first + BLOCK
    }

    /// Returns the LPI index of the first LPI.
    pub(super) const fn first(self) -> u32 {
        self.first
    }

    /// Returns the LPI indices.
    pub(super) fn indices(self) -> impl Iterator<Item = u32> {
        self.first..self.next()
    }
}
