//! Allocates table entries.

use super::table::TableSize;
use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::num::NonZeroU16;
use doorbell_fallible::try_collect;

/// Allocator for a table's entries. The index of a block's first entry is a multiple of the block's
/// size rounded up to a power of two, so that one invalidation covers the block.
#[derive(Debug)]
pub(super) struct Handles {
    /// One bit per entry, set while the entry is in use.
    used: Vec<u64>,
    count: u32,
}

impl Handles {
    pub(super) fn new(size: TableSize) -> Result<Self, TryReserveError> {
        let words = size.entries().div_ceil(64);
        Ok(Self { used: try_collect((0..words).map(|_| 0))?, count: size.entries() })
    }

    /// Allocates `count` consecutive entries, and returns the first.
    pub(super) fn allocate(&mut self, count: NonZeroU16) -> Option<u16> {
        let count = u32::from(count.get());
        let span = usize::try_from(count.next_power_of_two()).ok()?;
        let is_free = |first: &u32| {
            *first + count <= self.count && (*first..first + count).all(|e| !self.is_used(e))
        };
        let first = (0..self.count).step_by(span).find(is_free)?;
        (first..first + count).for_each(|entry| self.set(entry, true));
        u16::try_from(first).ok()
    }

    pub(super) fn free(&mut self, first: u16, count: NonZeroU16) {
        let first = u32::from(first);
        (first..first + u32::from(count.get())).for_each(|entry| self.set(entry, false));
    }

    pub(super) fn used(&self) -> u32 {
        self.used.iter().map(|word| word.count_ones()).sum()
    }

    fn is_used(&self, entry: u32) -> bool {
        let (word, bit) = split(entry);
        self.used.get(word).is_none_or(|word| word & bit != 0)
    }

    fn set(&mut self, entry: u32, used: bool) {
        let (word, bit) = split(entry);
        if let Some(word) = self.used.get_mut(word) {
            *word = if used { *word | bit } else { *word & !bit };
        }
    }
}

/// Returns the index of the word that contains the entry's bit, and the bit's mask.
fn split(entry: u32) -> (usize, u64) {
    ((entry / 64) as usize, 1 << (entry % 64))
}
