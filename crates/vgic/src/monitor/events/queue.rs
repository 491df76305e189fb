//! Bounded queue for faults of one kind. The queue supports concurrent writers and readers, none of
//! which ever waits.

use super::encoding::{Words, from_words, to_words};
use super::fault::{FaultReason, GuestFault};
use crate::sync::{AtomicU64, Ordering::SeqCst};
use core::cmp::Ordering;

/// Number of faults of one kind that are stored until the VMM reads them. Later faults are counted,
/// but not stored. The number is smaller in model checks, where each atomic access is expensive.
pub(super) const KEPT: usize = if cfg!(all(test, shuttle)) { 2 } else { 4 };

/// Faults of one kind, oldest first.
#[derive(Debug)]
pub(super) struct FaultQueue {
    cells: [FaultCell; KEPT],
    /// Number of faults ever pushed.
    pushed: AtomicU64,
    /// Number of faults ever popped.
    popped: AtomicU64,
}

/// Storage for one fault. `turn` is `n` when the `n`th push may write the cell, `n + 1` when the
/// `n`th pop may read it, and `n + KEPT` after that.
#[derive(Debug)]
struct FaultCell {
    turn: AtomicU64,
    /// The fault's number in the sequence over all kinds.
    number: AtomicU64,
    words: [AtomicU64; 4],
}

impl FaultQueue {
    pub(super) const fn new() -> Self {
        let mut cells = [const { FaultCell::with_turn(0) }; KEPT];
        let mut turn = 0;
        while turn < KEPT {
            cells[turn] = FaultCell::with_turn(turn as u64);
            turn += 1;
        }
        Self { cells, pushed: AtomicU64::new(0), popped: AtomicU64::new(0) }
    }

    fn cell(&self, number: u64) -> &FaultCell {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the remainder is less than the number of cells"
        )]
        let index = (number % KEPT as u64) as usize;
        &self.cells[index]
    }

    /// Returns `true` if the queue has no room for another fault. Another thread may change this.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        let turn = self.pushed.load(SeqCst);
        self.cell(turn).turn.load(SeqCst) < turn
    }

    /// Appends a fault with the number that `number` returns. Returns `false` if the queue is full.
    pub(super) fn push(&self, number: impl FnOnce() -> u64, fault: &GuestFault) -> bool {
        let mut turn = self.pushed.load(SeqCst);
        loop {
            let cell = self.cell(turn);
            match cell.turn.load(SeqCst).cmp(&turn) {
                Ordering::Less => return false,
                Ordering::Equal => {
                    match self.pushed.compare_exchange(turn, turn + 1, SeqCst, SeqCst) {
                        Ok(_) => {
                            cell.write(number(), to_words(fault), turn + 1);
                            return true;
                        }
                        Err(now) => turn = now,
                    }
                }
                Ordering::Greater => turn = self.pushed.load(SeqCst),
            }
        }
    }

    /// Returns the number of the oldest fault, or `None` if the queue is empty or the fault is
    /// still being written. The number is arbitrary if another thread takes the fault concurrently.
    pub(super) fn oldest(&self) -> Option<u64> {
        let turn = self.popped.load(SeqCst);
        let cell = self.cell(turn);
        (cell.turn.load(SeqCst) > turn).then(|| cell.number.load(SeqCst))
    }

    /// Removes the oldest fault. Returns `None` if the queue is empty or the fault is still being
    /// written.
    pub(super) fn pop(&self, reason: FaultReason) -> Option<GuestFault> {
        let mut turn = self.popped.load(SeqCst);
        loop {
            let cell = self.cell(turn);
            match cell.turn.load(SeqCst).cmp(&(turn + 1)) {
                Ordering::Less => return None,
                Ordering::Equal => {
                    match self.popped.compare_exchange(turn, turn + 1, SeqCst, SeqCst) {
                        Ok(_) => return Some(from_words(reason, cell.read(turn + KEPT as u64))),
                        Err(now) => turn = now,
                    }
                }
                Ordering::Greater => turn = self.popped.load(SeqCst),
            }
        }
    }
}

impl FaultCell {
    const fn with_turn(turn: u64) -> Self {
        Self {
            turn: AtomicU64::new(turn),
            number: AtomicU64::new(0),
            words: [const { AtomicU64::new(0) }; 4],
        }
    }

    fn write(&self, number: u64, words: Words, next: u64) {
        self.number.store(number, SeqCst);
        for (place, word) in self.words.iter().zip(words) {
            place.store(word, SeqCst);
        }
        self.turn.store(next, SeqCst);
    }

    fn read(&self, next: u64) -> Words {
        let words = core::array::from_fn(|index| self.words[index].load(SeqCst));
        self.turn.store(next, SeqCst);
        words
    }
}
