//! Selects the highest-priority interrupts without allocating.

use crate::cpu::listed::MAX_LIST_REGISTERS;
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::InterruptWord;
use gic_arch::{IntId, Priority};

/// Interrupt with its sampled state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Seen {
    pub(super) index: WiredIndex,
    pub(super) state: InterruptWord,
}

impl Seen {
    fn rank(self) -> (Priority, IntId) {
        (self.state.priority(), self.index.intid())
    }
}

/// The highest-priority interrupts, sorted by priority and INTID. The array holds at most as many
/// interrupts as a CPU can have list registers.
pub(super) struct Ranked {
    best: [Option<Seen>; MAX_LIST_REGISTERS],
    len: usize,
    next: usize,
    dropped: bool,
}

impl Ranked {
    pub(super) const fn new() -> Self {
        Self { best: [None; MAX_LIST_REGISTERS], len: 0, next: 0, dropped: false }
    }

    pub(super) fn insert(&mut self, seen: Seen) {
        let at = self
            .best
            .iter()
            .take(self.len)
            .flatten()
            .take_while(|other| other.rank() < seen.rank())
            .count();
        self.dropped |= self.len == MAX_LIST_REGISTERS;
        self.len = (self.len + 1).min(MAX_LIST_REGISTERS);
        let Some(behind) = self.best.get_mut(at..self.len) else { return };
        if let [.., _] = behind {
            behind.rotate_right(1);
            behind[0] = Some(seen);
        }
    }

    /// Returns the highest-priority remaining interrupt.
    pub(super) fn first(&self) -> Option<Seen> {
        self.best.get(self.next).copied().flatten()
    }

    pub(super) fn pop(&mut self) -> Option<Seen> {
        let first = self.first()?;
        self.next += 1;
        Some(first)
    }

    /// Returns `true` if any interrupt remains, including interrupts that didn't fit in the array.
    pub(super) fn any_left(&self) -> bool {
        self.dropped || self.first().is_some()
    }
}

#[cfg(not(shuttle))]
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_16_most_urgent_interrupts_rank_first() {
        let mut ranked = Ranked::new();
        for number in 0..40 {
            let index = WiredIndex::new(number).unwrap();
            let priority = u8::try_from((number * 7) % 40).unwrap();
            ranked
                .insert(Seen { index, state: InterruptWord::new().with_priority_value(priority) });
        }
        for expected in 0..16 {
            assert_eq!(ranked.pop().map(|seen| seen.state.priority_value()), Some(expected));
        }
        assert_eq!((ranked.pop(), ranked.any_left()), (None, true));
    }

    #[test]
    fn equal_priorities_rank_by_lowest_intid() {
        let mut ranked = Ranked::new();
        for number in [5, 3, 4] {
            ranked.insert(Seen {
                index: WiredIndex::new(number).unwrap(),
                state: InterruptWord::new(),
            });
        }
        let order = core::iter::from_fn(|| ranked.pop()).map(|seen| seen.index.get());
        assert!(order.eq([3, 4, 5]));
        assert!(!ranked.any_left());
    }
}
