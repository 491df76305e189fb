//! The candidate bitmap.

use crate::candidates::{Candidates, Look};
use crate::wired_index::WiredIndex;
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
fn a_stale_candidate_is_forgotten() {
    let candidates = Candidates::new();
    candidates.set(index(70));

    candidates.visit(|_| Look::Stale);

    assert!(seen(&candidates).is_empty());
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
