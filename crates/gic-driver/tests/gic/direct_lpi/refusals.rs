//! Tests for requests that must be refused without side effects.
//!
//! Out-of-memory tests: calls must fail without leaking memory or leaving partial changes.

use super::endpoint::{Endpoint, StoreKind, attach, fit, request, taken};
use crate::fake::Board;
use doorbell_test_support::{after_failures, with_allocations};
use gic_driver::direct_lpi::{DirectLpi, DirectLpiError};
use gic_driver::lpi::PendingLpis;
use msi_types::{Cpu, Fit, HwIrq, Initially, MoveOutcome, MsiError, MsiParent, Pending, Rewrite};

const ANY: Fit = Fit::new(Rewrite::Masked);

#[test]
fn masking_a_foreign_vector_is_a_fault_and_set_pending_does_nothing() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    for hwirq in [0, 42, 8192, 16384, u32::MAX].map(HwIrq::new) {
        direct.mask(hwirq);
        assert_eq!(direct.take_fault(), Some(MsiError::UnknownVector(hwirq)));
        direct.set_pending(hwirq, Pending::Set);
    }
    assert!(board.world().rd(0).pending.is_empty());
}

#[test]
fn a_block_larger_than_the_lpi_range_is_refused() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let count = u16::try_from(direct.gic().lpis().unwrap().count()).unwrap();
    let refused = direct.allocate(&attach(&direct), &request(fit(StoreKind::Masked), count + 1, 0));
    assert_eq!(refused, Err(MsiError::NoVectors { wanted: count + 1 }));
    assert!(direct.allocate(&attach(&direct), &request(fit(StoreKind::Masked), count, 0)).is_ok());
    let refused = direct.allocate(&attach(&direct), &request(ANY.with_data_bits(16), 1, 0));
    assert_eq!(refused, Err(MsiError::NoVectors { wanted: 1 }));
}

#[test]
fn a_second_move_is_refused_until_the_first_ends() {
    let board = Board::new(3, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let first = direct.begin_move(&device.block, 0, Cpu::new(1)).unwrap();
    assert!(matches!(
        direct.begin_move(&device.block, 0, Cpu::new(2)),
        Err(MsiError::Controller(_))
    ));
    direct.end_move(first, MoveOutcome::RolledBack).unwrap();
    assert!(direct.begin_move(&device.block, 0, Cpu::new(2)).is_ok());
}

#[test]
fn a_failed_invalidation_refuses_moves_and_retires_lpis() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let free = direct.gic().lpis().unwrap().available();
    board.world().rd(1).stuck_invalidation = true;
    assert!(matches!(
        direct.begin_move(&device.block, 0, Cpu::new(1)),
        Err(MsiError::Controller(_))
    ));
    let refused = direct.allocate(&attach(&direct), &request(ANY, 4, 1));
    assert!(matches!(refused, Err(MsiError::Controller(_))));
    // LPIs whose configuration an unresponsive redistributor may have cached are not reused.
    assert_eq!(direct.gic().lpis().unwrap().available(), free - 4);
    board.world().rd(1).stuck_invalidation = false;
    device.fire(&board, 0);
    assert_eq!(taken(&board, 0), [device.lpi(0)]);
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    device.fire(&board, 0);
    assert_eq!(taken(&board, 1), [device.lpi(0)]);
}

#[test]
fn freed_lpi_is_disabled_and_not_pending() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let Endpoint { block, .. } = {
        let device = Endpoint::new(&direct, StoreKind::Masked, 4, 0).unwrap();
        (0..4).for_each(|index| device.fire(&board, index));
        device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
        (0..4).for_each(|index| device.fire(&board, index));
        device
    };
    let lpis: Vec<_> = (0..4).map(|index| block.hwirq(index).unwrap().get()).collect();
    direct.free(&attach(&direct), block);
    for lpi in lpis {
        assert_eq!(board.world().pending_at(lpi), [0u32; 0]);
        assert!((0..2).all(|cpu| board.world().rd(cpu).config_of(lpi).unwrap() & 1 == 0));
    }
    assert_eq!(direct.take_fault(), None);
}

#[test]
fn vectors_requested_masked_start_masked() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let request = request(ANY, 32, 0).with_initially(Initially::Masked);
    let block = direct.allocate(&attach(&direct), &request).unwrap();
    direct.set_pending(block.first(), Pending::Set);
    assert_eq!(taken(&board, 0), [0u32; 0]);
    direct.unmask(block.first());
    assert_eq!(taken(&board, 0), [block.first().get()]);
}

#[test]
fn messages_sent_during_a_rolled_back_move_are_delivered() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Atomic64, 1, 0).unwrap();
    device.fail_to_relocate(&board, &direct, 1, &|| device.fire(&board, 0)).unwrap();
    direct.mask(device.block.first());
    assert_eq!(
        (taken(&board, 0), taken(&board, 1)),
        (vec![], vec![]),
        "the mask applies at the failed target as well"
    );
    direct.unmask(device.block.first());
    assert_eq!(taken(&board, 1), [device.lpi(0)]);
}

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
