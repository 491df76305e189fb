//! Bitmap of free hwirqs, with a hint for the lowest one. A search examines 64 hwirqs at a time, so
//! we hold the lock (and mask interrupts) for a bounded time, which depends on the number of hwirqs
//! divided by 64 and on the number of free runs.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
#[cfg(test)]
use core::cell::Cell;
use core::ops::Range;
use doorbell_fallible::try_collect;

const BITS: usize = u64::BITS as usize;

/// The set of free hwirqs, by their indices.
#[derive(Debug)]
pub(super) struct FreeHwirqs {
    /// A set bit marks a free hwirq.
    words: Vec<u64>,
    /// No hwirq below this index is free.
    lowest: usize,
    #[cfg(test)]
    words_read: Cell<u64>,
}

impl FreeHwirqs {
    /// Creates a set of `count` hwirqs, all of them free.
    pub(super) fn try_new(count: usize) -> Result<Self, TryReserveError> {
        let word = |index: usize| match count - index * BITS {
            0..BITS => (1 << (count - index * BITS)) - 1,
            _ => u64::MAX,
        };
        Ok(Self {
            words: try_collect((0..count.div_ceil(BITS)).map(word))?,
            lowest: 0,
            #[cfg(test)]
            words_read: Cell::new(0),
        })
    }

    /// Returns the number of free hwirqs.
    pub(super) fn len(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Allocates a hwirq.
    pub(super) fn take(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / BITS) {
            *word &= !(1 << (index % BITS));
        }
        if index == self.lowest {
            self.lowest = index + 1;
        }
    }

    /// Frees a hwirq.
    pub(super) fn give_back(&mut self, index: usize) {
        if let Some(word) = self.words.get_mut(index / BITS) {
            *word |= 1 << (index % BITS);
            self.lowest = self.lowest.min(index);
        }
    }

    /// Returns the first hwirq of the lowest run of `count` free hwirqs.
    pub(super) fn run(&self, count: u16) -> Option<usize> {
        let count = usize::from(count);
        let mut from = self.lowest;
        loop {
            let run = self.next_run(from, count)?;
            if run.len() >= count {
                return Some(run.start);
            }
            from = run.end;
        }
    }

    /// Returns the next run of free hwirqs at or after `from`. The search may stop after `enough`
    /// hwirqs.
    fn next_run(&self, from: usize, enough: usize) -> Option<Range<usize>> {
        let start = self.next(from)?;
        let mut end = start + 1;
        while end - start < enough {
            let taken = !self.word(end / BITS).unwrap_or(0) >> (end % BITS);
            let free = taken.trailing_zeros() as usize;
            end += free.min(BITS - end % BITS);
            if taken != 0 {
                break;
            }
        }
        Some(start..end)
    }

    /// Returns the first free hwirq at or after `from`.
    fn next(&self, from: usize) -> Option<usize> {
        let mut at = from;
        loop {
            let rest = self.word(at / BITS)? >> (at % BITS);
            if rest != 0 {
                return Some(at + rest.trailing_zeros() as usize);
            }
            at = (at / BITS + 1) * BITS;
        }
    }

    fn word(&self, index: usize) -> Option<u64> {
        #[cfg(test)]
        self.words_read.set(self.words_read.get() + 1);
        self.words.get(index).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    /// Allocates the lowest run.
    fn allocate(free: &mut FreeHwirqs, count: u16) -> Option<usize> {
        let first = free.run(count)?;
        (first..first + usize::from(count)).for_each(|index| free.take(index));
        Some(first)
    }

    #[test]
    fn single_allocations_read_at_most_two_words_on_average() {
        let mut free = FreeHwirqs::try_new(65_535).unwrap();
        for index in 0..65_535 {
            assert_eq!(allocate(&mut free, 1), Some(index));
        }
        assert_eq!(free.run(1), None);
        // A run that ends a word makes the search read two words.
        assert!(free.words_read.get() <= 2 * 65_536, "{} words read", free.words_read.get());
    }

    #[test]
    fn a_failing_search_reads_each_word_at_most_four_times_on_average() {
        let mut free = FreeHwirqs::try_new(65_535).unwrap();
        (0..65_535).step_by(64).for_each(|index| free.take(index));
        free.words_read.set(0);
        assert_eq!(free.run(64), None);
        assert!(free.words_read.get() <= 4 * 1024, "{} words read", free.words_read.get());
    }

    proptest! {
        #[test]
        fn free_hwirq_runs_agree_with_a_linear_search(
            size in 1usize..200,
            steps in vec((1u16..80, any::<prop::sample::Index>()), 1..60),
        ) {
            let mut free = FreeHwirqs::try_new(size).unwrap();
            let mut used = std::vec![false; size];
            for (count, back) in steps {
                let count_here = usize::from(count);
                let expected = (0..size).find(|first| {
                    used.get(*first..first + count_here).is_some_and(|run| !run.contains(&true))
                });
                prop_assert_eq!(allocate(&mut free, count), expected);
                if let Some(first) = expected {
                    used[first..first + count_here].fill(true);
                }
                let index = back.index(size);
                free.give_back(index);
                used[index] = false;
            }
        }
    }
}
