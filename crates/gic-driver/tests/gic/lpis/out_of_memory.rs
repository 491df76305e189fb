//! Out-of-memory tests: calls must fail without leaking memory or leaving partial changes.

use super::*;
use doorbell_test_support::{until_it_succeeds, with_allocations};

#[test]
fn adoption_without_heap_is_refused() {
    let fake = machine(2);
    leave_enabled(&fake, 0, false);
    leave_enabled(&fake, 1, false);
    reserve(&fake, &[OLD_CONFIG, OLD_PENDING, OLD_PENDING + 0x1_0000]);
    let distributor = Distributor::new(&fake, fake.distributor_frame(), DISTRIBUTOR).unwrap();
    let (platform, redistributors) = (Arc::new(fake.clone()), redistributors(&fake));
    let (lpis, failures) = until_it_succeeds(
        || Lpis::new(platform.clone(), &distributor, redistributors.iter(), CONFIG),
        |error| assert!(matches!(error, GicError::Lpi(LpiError::NoMemory { .. })), "{error}"),
    );
    assert_eq!(failures, 4, "stale redistributors, stale LPIs, allocator, pending tables");
    with_allocations(0, || {
        for redistributor in &redistributors {
            lpis.attach(redistributor).unwrap();
        }
        let range = lpis.allocate(count(8), Alignment::ONE).unwrap();
        lpis.free(range).unwrap();
    });
}

#[test]
fn lpis_without_heap_give_their_tables_back() {
    let fake = machine(2);
    let distributor = Distributor::new(&fake, fake.distributor_frame(), DISTRIBUTOR).unwrap();
    let (platform, redistributors) = (Arc::new(fake.clone()), redistributors(&fake));
    let (lpis, failures) = until_it_succeeds(
        || Lpis::new(platform.clone(), &distributor, redistributors.iter(), CONFIG),
        |error| {
            assert!(matches!(error, GicError::Lpi(LpiError::NoMemory { .. })), "{error}");
            assert_eq!(fake.in_memory(|memory| memory.live_regions()), 0);
        },
    );
    assert_eq!(failures, 2, "allocator, pending tables");
    with_allocations(0, || {
        for redistributor in &redistributors {
            lpis.attach(redistributor).unwrap();
        }
        let range = lpis.allocate(count(8), Alignment::ONE).unwrap();
        lpis.enable(range.first()).unwrap();
        lpis.free(range).unwrap();
    });
}
