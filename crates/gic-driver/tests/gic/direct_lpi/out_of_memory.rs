//! Out-of-memory tests: calls must fail without leaking memory or leaving partial changes.

use super::endpoint::{Endpoint, StoreKind, attach, fit, request, taken};
use crate::fake::Board;
use doorbell_test_support::{after_failures, with_allocations};
use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
use gic_driver::lpi::PendingLpis;
use msi_types::{Cpu, HwIrq, MsiError, MsiParent};

#[test]
fn direct_lpis_without_heap_are_refused() {
    let board = Board::new(2, 0);
    let gic = board.running_gic();
    let direct = after_failures(
        2,
        || DirectLpi::new(gic.clone()),
        |error| {
            assert_eq!(error, DirectLpiError::NoMemory);
            assert!((0..2).all(|cpu| board.world().rd(cpu).direct_writes == 0));
        },
    );
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
    device.fire(&board, 0);
    assert_eq!(taken(&board, 1), [device.lpi(0)]);
}

#[test]
fn vectors_without_heap_are_refused() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let free = direct.gic().lpis().unwrap().available();
    let device = with_allocations(0, || attach(&direct));
    let block = after_failures(
        1,
        || direct.allocate(&device, &request(fit(StoreKind::Masked), 4, 1)),
        |error| {
            assert!(matches!(error, MsiError::NoMemory(_)), "{error}");
            assert_eq!(direct.gic().lpis().unwrap().available(), free);
        },
    );
    with_allocations(0, || {
        direct.mask(block.first());
        direct.unmask(block.first());
        direct.free(&device, block);
    });
    assert_eq!((direct.take_fault(), direct.gic().lpis().unwrap().available()), (None, free));
}

#[test]
fn cpu_off_and_cpu_on_allocate_no_heap() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 2, 1).unwrap();
    let mut stranded = [None; 2];
    let off = with_allocations(0, || {
        let mut rest = stranded.iter_mut();
        direct.cpu_off(Cpu::new(1), |hwirq| *rest.next().unwrap() = Some(hwirq))
    });
    assert_eq!(off.unwrap().stranded, 2);
    assert_eq!(stranded, [0, 1].map(|index| Some(HwIrq::new(device.lpi(index)))));
    with_allocations(0, || direct.cpu_on(Cpu::new(1), PendingLpis::Kept)).unwrap();
}
