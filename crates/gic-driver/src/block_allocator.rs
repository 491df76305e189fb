//! Allocates aligned blocks of consecutive numbers, such as LPIs or a message frame's SPIs.

use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;
use doorbell_fallible::try_collect;
use msi_types::Shape;

/// Alignment of a block's first number, a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Alignment(u32);

impl Alignment {
    /// No alignment: the block may start at any number.
    pub const ONE: Self = Self(1);

    /// Returns an alignment to multiples of `to`, or `None` if `to` is not a power of two.
    pub const fn to(to: u32) -> Option<Self> {
        if to.is_power_of_two() { Some(Self(to)) } else { None }
    }

    /// Returns the alignment for a group of `count` numbers that differ only in the low bits
    /// (MultiMSI), which is the next power of two. Returns `None` if `count` exceeds 2^31.
    pub const fn of_group(count: NonZeroU32) -> Option<Self> {
        match count.get().checked_next_power_of_two() {
            Some(to) => Some(Self(to)),
            None => None,
        }
    }

    /// Returns the alignment as a number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the alignment of a request's vectors, or `None` on overflow.
    pub(crate) fn of(shape: Shape, count: NonZeroU32) -> Option<Self> {
        match shape {
            Shape::Independent => Some(Self::ONE),
            Shape::AlignedGroup => Self::of_group(count),
        }
    }
}

/// Error from allocating or freeing a block of numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// No sufficiently long run of free numbers with the requested alignment exists.
    #[error("no {count} consecutive numbers aligned to {align} are free")]
    Exhausted {
        /// Length of the requested block.
        count: u32,
        /// Requested alignment.
        align: u32,
    },
    /// The caller tried to allocate or free numbers outside of the allocator's range.
    #[error("{count} numbers from {first} on are outside of the allocator's range")]
    OutOfRange {
        /// The first number.
        first: u32,
        /// Length of the block.
        count: u32,
    },
    /// The caller tried to free a number that is not allocated.
    #[error("number {0} is not allocated")]
    NotAllocated(u32),
    /// The allocator's bitmap could not be allocated.
    #[error("out of memory for the bitmap of {count} numbers")]
    NoMemory {
        /// Size of the allocator's range.
        count: u32,
    },
}

/// Allocates aligned blocks from the numbers `first..first + count`, lowest first.
/// [`new`](Self::new) allocates all its memory, so [`allocate`](Self::allocate) and
/// [`free`](Self::free) may be called with interrupts masked.
#[derive(Debug)]
pub(crate) struct BlockAllocator {
    first: u32,
    count: u32,
    /// One bit per number, set while the number is allocated.
    used: Vec<u64>,
    /// Every index below this one is in use.
    search_from: u32,
    free: u32,
}

impl BlockAllocator {
    /// Creates an allocator for `count` numbers starting at `first`, all free. The range is
    /// truncated if it exceeds `u32`.
    ///
    /// # Errors
    /// [`BlockError::NoMemory`] if the allocation fails.
    pub(crate) fn new(first: u32, count: u32) -> Result<Self, BlockError> {
        let count = count.min(u32::MAX - first);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(0);
        let used = try_collect(core::iter::repeat_n(0, words))
            .map_err(|_| BlockError::NoMemory { count })?;
        Ok(Self { first, count, used, search_from: 0, free: count })
    }

    /// Allocates `count` consecutive numbers and returns the first. The number itself is aligned,
    /// not its offset in the allocator's range.
    ///
    /// # Errors
    /// [`BlockError::Exhausted`] if no suitable block is free.
    pub(crate) fn allocate(
        &mut self,
        count: NonZeroU32,
        align: Alignment,
    ) -> Result<u32, BlockError> {
        self.allocate_within(count, align, 0..u32::MAX)
    }

    /// Allocates a block like [`allocate`](Self::allocate), but only from the numbers in `within`.
    /// Devices whose message data is too narrow for all numbers need this.
    ///
    /// # Errors
    /// [`BlockError::Exhausted`] if no suitable block is free in `within`.
    pub(crate) fn allocate_within(
        &mut self,
        count: NonZeroU32,
        align: Alignment,
        within: Range<u32>,
    ) -> Result<u32, BlockError> {
        let count = count.get();
        let exhausted = BlockError::Exhausted { count, align: align.get() };
        let Range { start, end: limit } = self.indices(&within);
        let mut index = self.search_from.max(start);
        loop {
            index =
                self.next_free(index).and_then(|free| self.align(free, align)).ok_or(exhausted)?;
            let end = index.checked_add(count).filter(|end| *end <= limit).ok_or(exhausted)?;
            match self.last_used(index, end) {
                Some(used) => index = used + 1,
                None => break,
            }
        }
        self.mark(index, count, Mark::Allocated);
        Ok(self.first + index)
    }

    /// Frees a block of numbers, or part of a block.
    ///
    /// # Errors
    /// [`BlockError::OutOfRange`] if the numbers exceed the allocator's range;
    /// [`BlockError::NotAllocated`] if a number is already free. On error, no number is freed.
    pub(crate) fn free(&mut self, first: u32, count: NonZeroU32) -> Result<(), BlockError> {
        let index = self.index_of(first, count.get())?;
        let end = index + count.get();
        if let Some(free) = self.next_free(index).filter(|free| *free < end) {
            return Err(BlockError::NotAllocated(self.first + free));
        }
        self.mark(index, count.get(), Mark::Free);
        Ok(())
    }

    /// Returns `true` if the number is allocated.
    pub(crate) fn is_allocated(&self, number: u32) -> bool {
        self.index_of(number, 1).is_ok_and(|index| self.last_used(index, index + 1).is_some())
    }

    /// Returns how many of the allocator's numbers are free.
    pub(crate) fn available(&self) -> u32 {
        self.free
    }

    /// Returns `true` if one of these numbers is free.
    pub(crate) fn has_free_within(&self, within: Range<u32>) -> bool {
        let Range { start, end } = self.indices(&within);
        self.next_free(start).is_some_and(|free| free < end)
    }

    /// Returns the size of the allocator's range, including allocated numbers.
    pub(crate) fn capacity(&self) -> u32 {
        self.count
    }

    fn index_of(&self, first: u32, count: u32) -> Result<u32, BlockError> {
        let out = BlockError::OutOfRange { first, count };
        let index = first.checked_sub(self.first).ok_or(out)?;
        index.checked_add(count).filter(|end| *end <= self.count).map(|_| index).ok_or(out)
    }

    /// Returns the indices of `numbers`, clamped to the allocator's range.
    fn indices(&self, numbers: &Range<u32>) -> Range<u32> {
        let index_of = |number: u32| number.saturating_sub(self.first).min(self.count);
        index_of(numbers.start)..index_of(numbers.end)
    }

    /// Returns the first index at or after `index` whose number is aligned.
    fn align(&self, index: u32, align: Alignment) -> Option<u32> {
        let number = self.first.checked_add(index)?.checked_next_multiple_of(align.get())?;
        Some(number - self.first)
    }

    /// Returns the first free index at or after `from`.
    fn next_free(&self, from: u32) -> Option<u32> {
        let (first_word, bit) = split(from);
        for (word, used) in self.used.iter().enumerate().skip(first_word) {
            let below = if word == first_word { !(u64::MAX << bit) } else { 0 };
            let free = !(used | below);
            if free != 0 {
                return Some(join(word, free.trailing_zeros())).filter(|index| *index < self.count);
            }
        }
        None
    }

    /// Returns the last used index in `from..end`, which must lie within the allocator's range.
    fn last_used(&self, from: u32, end: u32) -> Option<u32> {
        let mut index = end;
        while index > from {
            let (word, bit) = split(index - 1);
            let used = self.used.get(word).copied().unwrap_or(0) & (u64::MAX >> (63 - bit));
            if used != 0 {
                return Some(join(word, used.ilog2())).filter(|last| *last >= from);
            }
            index = join(word, 0);
        }
        None
    }

    fn mark(&mut self, index: u32, count: u32, new: Mark) {
        for bit in index..index + count {
            let (word, bit) = split(bit);
            if let Some(word) = self.used.get_mut(word) {
                match new {
                    Mark::Allocated => *word |= 1 << bit,
                    Mark::Free => *word &= !(1 << bit),
                }
            }
        }
        match new {
            Mark::Allocated => {
                self.free -= count;
                if index == self.search_from {
                    self.search_from = index + count;
                }
            }
            Mark::Free => {
                self.free += count;
                self.search_from = self.search_from.min(index);
            }
        }
    }
}

/// New state of a block of numbers.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Allocated,
    Free,
}

/// Splits an index into its word and the bit in that word.
fn split(index: u32) -> (usize, u32) {
    ((index / 64) as usize, index % 64)
}

/// Returns the index for a bit in a word. The result fits in a `u32` because every word number was
/// derived from a `u32` index.
fn join(word: usize, bit: u32) -> u32 {
    u32::try_from(word).unwrap_or(u32::MAX / 64) * 64 + bit
}

#[cfg(test)]
mod tests;
