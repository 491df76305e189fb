//! The steps of a wired interrupt's candidate as separate symbols, for Arm's memory model.

#![expect(private_interfaces, reason = "the functions are compiled, and never called")]
#![expect(missing_docs, reason = "the comments say what differs from the functions they call")]

use super::Candidates;
use crate::wired::index::WiredIndex;
use crate::wired::interrupt::Interrupt;

#[inline(never)]
pub fn interrupt_is_pending(interrupt: &Interrupt) -> bool {
    interrupt.state().pending()
}

#[inline(never)]
pub fn candidate_leaf_is_empty(candidates: &Candidates) -> bool {
    candidates.leaves[0].bits() == 0
}

#[inline(never)]
pub fn candidates_are_empty(candidates: &Candidates) -> bool {
    candidates.is_empty()
}

/// Makes the first interrupt pending, and then sets its bit, as `pend_sgi` does.
#[inline(never)]
pub fn fire(interrupt: &Interrupt, candidates: &Candidates) {
    let Some(index) = WiredIndex::new(0) else { return };
    interrupt.update(|state| state.with_latch(true));
    candidates.set(index);
}

/// Removes the only candidate, and sets its bit again if it is pending, as `take_only` requires.
#[inline(never)]
pub fn forget_candidate(interrupt: &Interrupt, candidates: &Candidates) {
    if let Some(index) = candidates.take_only()
        && interrupt.state().pending()
    {
        candidates.set(index);
    }
}
