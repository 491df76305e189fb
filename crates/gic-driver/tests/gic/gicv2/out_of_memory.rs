//! Out-of-memory tests: calls must fail without leaking memory or leaving partial changes.

use super::*;
use doorbell_test_support::{until_it_succeeds, with_allocations};

#[test]
fn a_gicv2_takes_heap_for_its_suspension_alone() {
    let board = Board::new();
    let config = GicV2Config::new(DISTRIBUTOR, INTERFACE, 3);
    let gic = with_allocations(0, || GicV2::new(&board, config, Cpu::new(0))).unwrap();
    with_allocations(0, || gic.cpu_on(Cpu::new(0))).unwrap();
    let (room, failures) = until_it_succeeds(
        || gic.suspend_room(),
        |error| {
            assert!(matches!(error, GicError::NoMemory(_)), "{error}");
            assert_eq!(
                gic.send(SgiId::new(1).unwrap(), Cpu::new(0)),
                Ok(()),
                "the CPU is still on"
            );
        },
    );
    assert_eq!(failures, 1);
    let saved = with_allocations(0, || gic.suspend(room, Cpu::new(0))).unwrap();
    with_allocations(0, || gic.resume(&saved));
    assert_eq!(gic.send(SgiId::new(1).unwrap(), Cpu::new(0)), Ok(()));
}
