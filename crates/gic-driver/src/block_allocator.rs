//! Aligned blocks of consecutive numbers: LPIs, the SPIs of message frames, whatever an endpoint's
//! message counts up.

use alloc::vec::Vec;
use core::num::NonZeroU32;
use core::ops::Range;
use doorbell_fallible::try_collect;

/// To what a block's first number is aligned: a power of two.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Alignment(u32);

impl Alignment {
    /// Any number will do.
    pub const ONE: Self = Self(1);

    /// A multiple of `to`; `None` if that is no power of two.
    pub const fn to(to: u32) -> Option<Self> {
        if to.is_power_of_two() { Some(Self(to)) } else { None }
    }

    /// The alignment of a group of `count` whose members differ in the low bits alone (MultiMSI):
    /// the next power of two. `None` above 2^31.
    pub const fn of_group(count: NonZeroU32) -> Option<Self> {
        match count.get().checked_next_power_of_two() {
            Some(to) => Some(Self(to)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Reasons to refuse an allocation or a free.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BlockError {
    /// No run of free numbers is long enough at that alignment.
    #[error("no {count} consecutive numbers aligned to {align} are free")]
    Exhausted {
        /// Numbers asked for.
        count: u32,
        /// Their alignment.
        align: u32,
    },
    /// The caller frees, or allocates, numbers that this allocator does not have.
    #[error("{count} numbers from {first} on are beyond this allocator")]
    OutOfRange {
        /// The first.
        first: u32,
        /// Length of the block.
        count: u32,
    },
    /// The caller frees a number that is free.
    #[error("number {0} is not allocated")]
    NotAllocated(u32),
    /// There is no memory for the book of so many numbers.
    #[error("no memory to keep account of {count} numbers")]
    NoMemory {
        /// Length of the block.
        count: u32,
    },
    /// The caller asks for a certain number that is not free.
    #[error("number {0} is already allocated")]
    AlreadyAllocated(u32),
}

/// Allocates aligned blocks of the numbers `first..first + count`, lowest first. All its memory is
/// allocated by [`new`](Self::new): [`allocate`](Self::allocate) and [`free`](Self::free) may run
/// with interrupts masked.
#[derive(Debug)]
pub struct BlockAllocator {
    first: u32,
    count: u32,
    /// One bit for each number, set while it is allocated.
    used: Vec<u64>,
    /// No number below this index is free.
    search_from: u32,
    free: u32,
}

impl BlockAllocator {
    /// An allocator of `count` numbers from `first` on, all free. Numbers beyond `u32::MAX` are
    /// left out.
    ///
    /// # Errors
    /// [`BlockError::NoMemory`].
    pub fn new(first: u32, count: u32) -> Result<Self, BlockError> {
        let count = count.min(u32::MAX - first);
        let words = usize::try_from(count.div_ceil(64)).unwrap_or(0);
        let used = try_collect(core::iter::repeat_n(0, words))
            .map_err(|_| BlockError::NoMemory { count })?;
        Ok(Self { first, count, used, search_from: 0, free: count })
    }

    /// Allocates `count` consecutive numbers and returns the first. The first is aligned as a
    /// number, not counted from the range's beginning.
    ///
    /// # Errors
    /// [`BlockError::Exhausted`].
    pub fn allocate(&mut self, count: NonZeroU32, align: Alignment) -> Result<u32, BlockError> {
        self.allocate_within(count, align, 0..u32::MAX)
    }

    /// Allocates numbers of the range `within` only, because the data of a message may have fewer
    /// bits.
    ///
    /// # Errors
    /// [`BlockError::Exhausted`].
    pub fn allocate_within(
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

    /// Allocates the `count` numbers from `first` on.
    ///
    /// # Errors
    /// [`BlockError::OutOfRange`], [`BlockError::AlreadyAllocated`]: nothing is taken then.
    pub fn allocate_at(&mut self, first: u32, count: NonZeroU32) -> Result<(), BlockError> {
        let index = self.index_of(first, count.get())?;
        if let Some(used) = self.last_used(index, index + count.get()) {
            return Err(BlockError::AlreadyAllocated(self.first + used));
        }
        self.mark(index, count.get(), Mark::Allocated);
        Ok(())
    }

    /// Frees numbers: a whole block or a part of one.
    ///
    /// # Errors
    /// [`BlockError::OutOfRange`], [`BlockError::NotAllocated`]: nothing is freed then.
    pub fn free(&mut self, first: u32, count: NonZeroU32) -> Result<(), BlockError> {
        let index = self.index_of(first, count.get())?;
        let end = index + count.get();
        if let Some(free) = self.next_free(index).filter(|free| *free < end) {
            return Err(BlockError::NotAllocated(self.first + free));
        }
        self.mark(index, count.get(), Mark::Free);
        Ok(())
    }

    /// Returns true for an allocated number.
    pub fn is_allocated(&self, number: u32) -> bool {
        self.index_of(number, 1).is_ok_and(|index| self.last_used(index, index + 1).is_some())
    }

    /// Number of free numbers.
    pub fn available(&self) -> u32 {
        self.free
    }

    /// Returns true if one of these numbers is free.
    pub fn has_free_within(&self, within: Range<u32>) -> bool {
        let Range { start, end } = self.indices(&within);
        self.next_free(start).is_some_and(|free| free < end)
    }

    /// Number of all numbers, free and allocated.
    pub fn capacity(&self) -> u32 {
        self.count
    }

    fn index_of(&self, first: u32, count: u32) -> Result<u32, BlockError> {
        let out = BlockError::OutOfRange { first, count };
        let index = first.checked_sub(self.first).ok_or(out)?;
        index.checked_add(count).filter(|end| *end <= self.count).map(|_| index).ok_or(out)
    }

    /// The indices of those numbers that there are.
    fn indices(&self, numbers: &Range<u32>) -> Range<u32> {
        let index_of = |number: u32| number.saturating_sub(self.first).min(self.count);
        index_of(numbers.start)..index_of(numbers.end)
    }

    /// The first index from `index` on whose number is aligned.
    fn align(&self, index: u32, align: Alignment) -> Option<u32> {
        let number = self.first.checked_add(index)?.checked_next_multiple_of(align.get())?;
        Some(number - self.first)
    }

    /// The first free index from `from` on.
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

    /// The last used index in `from..end`, which lies within the range.
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

/// The new state of numbers.
#[derive(Clone, Copy, Debug)]
enum Mark {
    Allocated,
    Free,
}

/// The word and the bit in it.
fn split(index: u32) -> (usize, u32) {
    ((index / 64) as usize, index % 64)
}

/// The index of a bit in a word. Words are counted up from indices, so it fits.
fn join(word: usize, bit: u32) -> u32 {
    u32::try_from(word).unwrap_or(u32::MAX / 64) * 64 + bit
}

#[cfg(test)]
mod tests;
