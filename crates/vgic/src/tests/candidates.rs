//! The candidate bitmap.

use crate::candidates::{Candidates, Look};
use crate::slot::Slot;
use alloc::vec::Vec;

fn slot(number: usize) -> Slot {
    Slot::new(number).unwrap()
}

fn seen(candidates: &Candidates) -> Vec<usize> {
    let mut seen = Vec::new();
    candidates.visit(|slot| {
        seen.push(slot.index());
        Look::Ready
    });
    seen
}

#[test]
fn every_slot_that_was_set_is_visited() {
    let candidates = Candidates::new();
    for number in 0..Slot::COUNT {
        candidates.set(slot(number));
    }
    assert_eq!(seen(&candidates), (0..Slot::COUNT).collect::<Vec<_>>());
}

#[test]
fn a_stale_candidate_is_forgotten() {
    let candidates = Candidates::new();
    candidates.set(slot(70));

    candidates.visit(|_| Look::Stale);

    assert!(seen(&candidates).is_empty());
}

#[test]
fn a_candidate_ready_during_clearing_is_kept() {
    let candidates = Candidates::new();
    candidates.set(slot(70));

    let mut looks = 0;
    candidates.visit(|_| {
        looks += 1;
        if looks == 1 { Look::Stale } else { Look::Ready }
    });

    assert_eq!(seen(&candidates), [70]);
}
