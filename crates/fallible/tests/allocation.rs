//! Allocation on a heap whose allocations fail on request.

use doorbell_fallible::*;
use doorbell_test_support::with_allocations;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

#[test]
fn exhausted_memory_is_an_error() {
    with_allocations(0, || {
        assert!(try_collect([1, 2].into_iter()).is_err());
        assert!(try_push(&mut Vec::new(), 1).is_err());
        assert!(try_box(1).is_err());
        assert!(try_box_array::<_, 4>(|| 1).is_err());
        assert!(SortedMap::<u32, u32>::new().reserve().is_err());
        assert!(try_arc(7).is_err());
        assert!(try_boxed_slice([1].into_iter()).is_err());
        assert!(try_collect_exact([1].into_iter()).is_err());
        let ones = [Ok::<_, OutOfMemory>(1)];
        assert_eq!(try_collect_results(ones.into_iter()), Err(OutOfMemory));
        assert!(try_page_table::<[u8; 2]>(1).is_err());
        assert!(try_page::<u8, 2>(&OnceBox::new(), || 7).is_err());
    });
}

#[test]
fn creating_a_box_allocates_once() {
    with_allocations(1, || assert_eq!(try_box(7).map(|boxed| *boxed), Ok([7])));
    with_allocations(1, || {
        assert_eq!(try_box_array::<_, 3>(|| 7).map(|boxed| *boxed), Ok([7; 3]));
    });
}

#[test]
fn creating_an_arc_allocates_once() {
    with_allocations(1, || assert_eq!(try_arc([7_u8; 3]).map(|shared| *shared), Ok([7; 3])));
}

#[test]
fn inserting_into_reserved_capacity_does_not_allocate() {
    let mut map = SortedMap::new();
    map.reserve_many(100).unwrap();
    with_allocations(0, || (0..100).rev().for_each(|key| map.insert(key, key)));
    assert!(map.values().copied().eq(0..100));
    map.retain(|key, _| key >= 98);
    assert!(map.iter().eq([(98, &98), (99, &99)]));
}

#[test]
fn an_exactly_collected_vector_has_no_spare_capacity() {
    let odd = (0..10).filter(|number| number % 2 == 1);
    let odd = with_allocations(1, || try_collect_exact(odd)).unwrap();
    assert_eq!((&*odd, odd.capacity()), (&[1, 3, 5, 7, 9][..], 5));
}

#[test]
fn a_page_is_allocated_once() {
    let table = try_page_table::<[u8; 2]>(1).unwrap();
    try_page(&table[0], || 7).unwrap();
    with_allocations(0, || try_page(&table[0], || 8)).unwrap();
    assert_eq!(table[0].get(), Some(&[7, 7]));
}

type Drops = Arc<AtomicUsize>;

/// Counts its drops.
struct Counted(Drops);

impl Drop for Counted {
    fn drop(&mut self) {
        let Self(drops) = self;
        drops.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_value_is_dropped_if_its_allocation_fails() {
    let drops = Drops::default();
    let refused = with_allocations(0, || Shared::<_>::try_new(Counted(drops.clone())).is_err());
    assert!(refused);
    assert_eq!(drops.load(SeqCst), 1);
}

#[test]
fn a_trait_object_is_dropped_with_its_last_owner() {
    let drops = Drops::default();
    let counted = Counted(drops.clone());
    let run: Shared<dyn Fn()> =
        Shared::<dyn Fn()>::try_unsized(move || drop(counted.0.clone()), |block| block).unwrap();
    drop(run.clone());
    assert_eq!(drops.load(SeqCst), 0);
    drop(run);
    assert_eq!(drops.load(SeqCst), 1);
}
