//! Bitmap of the interrupts that a vCPU must check, with summary bits. All threads may set bits,
//! but only the vCPU's thread iterates over them.
//!
//! False positives are harmless: the vCPU checks the word of each interrupt whose bit is set, and
//! clears the bit if the interrupt isn't ready. Invariant: every ready word has its bit set. A
//! writer that makes a word ready sets the bit afterwards, and a reader that clears a bit checks
//! the word again afterwards. All of these accesses are sequentially consistent, so at least one
//! side observes the other.
//!
//! A writer that finds the bit set does not write it, because a locked operation on another vCPU's
//! cache line is expensive. A reader that clears the bit afterwards finds the word ready.

use crate::sync::summary::Summary;
use crate::wired::index::WiredIndex;

const LEAVES: usize = WiredIndex::COUNT.div_ceil(64);
const _: () = assert!(LEAVES <= 64, "one summary word covers all leaves");

/// One vCPU's bitmap.
#[derive(Debug)]
pub(crate) struct Candidates {
    summary: Summary,
    leaves: [Summary; LEAVES],
}

/// Result of checking a candidate's word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// The interrupt is ready at this vCPU, so its bit stays set.
    Ready,
    /// The interrupt is not ready at this vCPU, so its bit is cleared.
    Stale,
}

impl Candidates {
    pub(crate) const fn new() -> Self {
        Self { summary: Summary::new(), leaves: [const { Summary::new() }; LEAVES] }
    }

    /// Sets the bit of the interrupt at `index`, which has become ready.
    ///
    /// Context: any.
    #[inline]
    pub(crate) fn set(&self, index: WiredIndex) {
        let leaf = index.get() / 64;
        if let Some(word) = self.leaves.get(leaf) {
            word.set(1 << (index.get() % 64));
            self.summary.set(1 << leaf);
        }
    }

    /// Returns `true` if there is no candidate. A candidate is not necessarily ready.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.summary.bits() == 0
    }

    /// Returns the candidate, if there is only one. Must be called on the vCPU's own thread.
    #[inline]
    pub(crate) fn sole(&self) -> Option<WiredIndex> {
        let leaf = only_bit(self.summary.bits())?;
        let bit = only_bit(self.leaves.get(leaf)?.bits())?;
        WiredIndex::new(leaf * 64 + bit)
    }

    /// If there is only one candidate, removes it. Callers must check the interrupt afterwards, and
    /// must [`set`](Self::set) its bit again if it is still ready. Must be called on the vCPU's own
    /// thread.
    #[inline]
    pub(crate) fn take_only(&self) -> Option<WiredIndex> {
        let leaves = self.summary.bits();
        let leaf = only_bit(leaves)?;
        let word = self.leaves.get(leaf)?;
        let bits = word.bits();
        let index = WiredIndex::new(leaf * 64 + only_bit(bits)?)?;
        word.remove(bits);
        self.summary.clear(leaves, || word.bits() == 0);
        Some(index)
    }

    /// Calls `look` for each candidate, and removes stale candidates. Must be called on the vCPU's
    /// own thread. The work is bounded by the number of interrupts, even if other threads set bits
    /// concurrently.
    pub(crate) fn visit(&self, mut look: impl FnMut(WiredIndex) -> Look) {
        for leaf in set_bits(self.summary.bits()) {
            let Some(word) = self.leaves.get(leaf) else { continue };
            for bit in set_bits(word.bits()) {
                let Some(index) = WiredIndex::new(leaf * 64 + bit) else { continue };
                if look(index) == Look::Stale {
                    word.remove(1 << bit);
                    if look(index) == Look::Ready {
                        self.set(index);
                    }
                }
            }
            if word.bits() == 0 {
                self.summary.clear(1 << leaf, || word.bits() == 0);
            }
        }
    }
}

/// Returns the number of the set bit, if exactly one bit is set.
#[inline]
const fn only_bit(word: u64) -> Option<usize> {
    if word.is_power_of_two() { Some(word.trailing_zeros() as usize) } else { None }
}

/// Returns the numbers of the bits that are set, in ascending order.
pub(crate) fn set_bits(mut word: u64) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if word == 0 {
            return None;
        }
        let lowest = word.trailing_zeros() as usize;
        word &= word - 1;
        Some(lowest)
    })
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn index(number: usize) -> WiredIndex {
        WiredIndex::new(number).unwrap()
    }

    fn seen(candidates: &Candidates) -> Vec<usize> {
        let mut seen = Vec::new();
        candidates.visit(|index| {
            seen.push(index.get());
            Look::Ready
        });
        seen
    }

    #[test]
    fn every_slot_that_was_set_is_visited() {
        let candidates = Candidates::new();
        for number in 0..WiredIndex::COUNT {
            candidates.set(index(number));
        }
        assert_eq!(seen(&candidates), (0..WiredIndex::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn visiting_removes_a_stale_candidate() {
        let candidates = Candidates::new();
        candidates.set(index(70));

        candidates.visit(|_| Look::Stale);

        assert!(seen(&candidates).is_empty());
    }

    #[test]
    fn take_only_removes_the_only_candidate() {
        for number in [0, 70, WiredIndex::COUNT - 1] {
            let candidates = Candidates::new();
            candidates.set(index(number));
            assert_eq!(candidates.take_only(), Some(index(number)));
            assert!(candidates.is_empty());
            assert_eq!(candidates.take_only(), None);
        }
    }

    #[test]
    fn take_only_removes_neither_of_two_candidates() {
        for other in [71, 700] {
            let candidates = Candidates::new();
            candidates.set(index(70));
            candidates.set(index(other));
            assert_eq!(candidates.take_only(), None);
            assert_eq!(seen(&candidates), [70, other]);
        }
    }

    #[test]
    fn a_candidate_ready_during_clearing_is_kept() {
        let candidates = Candidates::new();
        candidates.set(index(70));

        let mut looks = 0;
        candidates.visit(|_| {
            looks += 1;
            if looks == 1 { Look::Stale } else { Look::Ready }
        });

        assert_eq!(seen(&candidates), [70]);
    }
}
