//! The table of slot words. Type-stable: a page, once there, stays as long as the table.

use super::word::Word;
use crate::atomic::{AtomicU64, Ordering};
use crate::heap::{OutOfMemory, no_pages, provide};
use alloc::boxed::Box;
use once_cell::race::OnceBox;

/// Slots of a page: 4 KiB of words.
const PAGE_BITS: u32 = 9;
const PAGE_SLOTS: usize = 1 << PAGE_BITS;
const PAGE_MASK: u32 = (1 << PAGE_BITS) - 1;
/// Neighbouring slots are this many words apart (as a power of two): 128 bytes.
const STRIDE_BITS: u32 = 4;

/// A slot, as the allocator counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Slot(u32);

/// Where a slot's word and hint bits lie: the slot number with its low nine bits rotated, so that
/// the vectors of one device do not share a cache line but do share a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Position(u32);

impl Slot {
    /// The slot with this number.
    pub(super) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub(super) const fn get(self) -> u32 {
        self.0
    }

    /// The slot `offset` places on.
    pub(super) const fn offset(self, offset: u32) -> Self {
        Self(self.0.wrapping_add(offset))
    }

    /// Where it lies.
    pub(super) const fn position(self) -> Position {
        let low = self.0 & PAGE_MASK;
        let rotated = ((low << STRIDE_BITS) | (low >> (PAGE_BITS - STRIDE_BITS))) & PAGE_MASK;
        Position((self.0 & !PAGE_MASK) | rotated)
    }
}

impl Position {
    /// The position with this number.
    pub(super) const fn new(number: u32) -> Self {
        Self(number)
    }

    /// The number.
    pub(super) const fn get(self) -> u32 {
        self.0
    }
}

type Page = [AtomicU64; PAGE_SLOTS];

/// The words.
pub(super) struct SlotTable {
    pages: Box<[OnceBox<Page>]>,
}

impl SlotTable {
    /// A table that can hold `slots` slots; pages come with [`ensure`](Self::ensure).
    pub(super) fn new(slots: u32) -> Result<Self, OutOfMemory> {
        Ok(Self { pages: no_pages(slots.div_ceil(1 << PAGE_BITS))? })
    }

    /// Makes sure that the page of `slot` is there. Off the hot path.
    pub(super) fn ensure(&self, slot: Slot) -> Result<(), OutOfMemory> {
        match self.pages.get((slot.get() >> PAGE_BITS) as usize) {
            Some(page) => provide(page, || AtomicU64::new(0)),
            None => Ok(()),
        }
    }

    /// The word at `position`; `None` where no slot was ever made.
    #[inline]
    pub(super) fn word(&self, position: Position) -> Option<&AtomicU64> {
        let page = self.pages.get((position.get() >> PAGE_BITS) as usize)?.get()?;
        Some(&page[(position.get() & PAGE_MASK) as usize])
    }

    /// What the word at `position` holds; an unmapped word where no slot was ever made.
    #[inline]
    pub(super) fn load(&self, position: Position) -> Word {
        self.word(position)
            .map_or(Word::unmapped(0), |word| Word::from_bits(word.load(Ordering::SeqCst)))
    }

    /// Replaces the word at `position` by `change` of it, in one read-modify-write, while that
    /// gives something; returns the old value, `None` if nothing changed.
    #[inline]
    pub(super) fn try_update(
        &self,
        position: Position,
        change: impl Fn(Word) -> Option<Word>,
    ) -> Option<Word> {
        let atomic = self.word(position)?;
        let mut old = Word::from_bits(atomic.load(Ordering::SeqCst));
        loop {
            let new = change(old)?;
            match atomic.compare_exchange(
                old.bits(),
                new.bits(),
                Ordering::SeqCst,
                Ordering::SeqCst,
            ) {
                Ok(_) => return Some(old),
                Err(seen) => old = Word::from_bits(seen),
            }
        }
    }
}
