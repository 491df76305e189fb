//! Tests for masking, priorities and pending state: when a call returns, the change must have taken
//! effect at the redistributors.

use super::endpoint::{Endpoint, StoreKind, taken};
use crate::fake::Board;
use gic_arch::Priority;
use msi_types::{HwIrq, MsiError, MsiParent, Pending};

#[test]
fn a_mask_after_a_move_applies_at_old_and_new_redistributors() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let hwirq = device.block.first();
    device.fire(&board, 0);
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    device.fire(&board, 0);
    direct.mask(hwirq);
    assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![], vec![]));
    direct.unmask(hwirq);
    assert_eq!((taken(&board, 0), taken(&board, 1)), (vec![hwirq.get()], vec![hwirq.get()]));
}

#[test]
fn a_mask_invalidates_at_no_more_than_four_redistributors() {
    let board = Board::new(8, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let mask = || {
        let count = |cpu| board.world().rd(cpu).invalidations;
        let before = [0, 1, 2, 3, 4, 5, 6, 7].map(count);
        direct.mask(device.block.first());
        direct.unmask(device.block.first());
        (0..8).filter(|cpu| count(*cpu) != before[*cpu as usize]).collect::<Vec<_>>()
    };
    assert_eq!(mask(), [0]);
    let moves: [(u32, &[u32]); 9] = [
        (1, &[0, 1]),
        (2, &[0, 1, 2]),
        (3, &[0, 1, 2, 3]),
        (0, &[0, 1, 2, 3]),
        (4, &[0, 4]),
        (5, &[0, 4, 5]),
        (6, &[0, 4, 5, 6]),
        (7, &[6, 7]),
        (6, &[6, 7]),
    ];
    for (to, expected) in moves {
        device.relocate(&board, &direct, 0, to, &|| ()).unwrap();
        assert_eq!(mask(), expected);
    }
}

#[test]
fn invalidations_at_one_cpu_are_serialized() {
    let board = Board::new(1, 0);
    board.world().patience = 10_000_000;
    let direct = board.direct_lpi().unwrap();
    let devices: Vec<_> =
        (0..4).map(|_| Endpoint::new(&direct, StoreKind::Fixed, 8, 0).unwrap()).collect();
    std::thread::scope(|scope| {
        for device in &devices {
            scope.spawn(|| {
                for index in (0..8).cycle().take(400) {
                    let hwirq = device.block.hwirq(index).unwrap();
                    direct.mask(hwirq);
                    let enabled = board.world().rd(0).config_of(hwirq.get()).unwrap() & 1;
                    assert_eq!(enabled, 0, "masked on return");
                    direct.unmask(hwirq);
                }
            });
        }
    });
    assert_eq!(direct.take_fault(), None);
    for device in &devices {
        (0..8).for_each(|index| device.fire(&board, index));
    }
    assert_eq!(taken(&board, 0).len(), 32);
}

#[test]
fn an_unresponsive_redistributor_delays_only_the_first_mask() {
    let board = Board::new(1, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Fixed, 8, 0).unwrap();
    board.world().rd(0).stuck_invalidation = true;
    let reads = |index| {
        let before = board.world().rd(0).direct_writes;
        direct.mask(device.block.hwirq(index).unwrap());
        assert!(matches!(direct.take_fault(), Some(MsiError::Controller(_))));
        board.world().rd(0).direct_writes - before
    };
    assert!(reads(0) > 40, "the wait lasts as long as the clock allows");
    assert_eq!((reads(1), reads(2)), (1, 1));
    board.world().rd(0).stuck_invalidation = false;
    for index in 0..8 {
        direct.mask(device.block.hwirq(index).unwrap());
        direct.unmask(device.block.hwirq(index).unwrap());
        device.fire(&board, index);
    }
    assert_eq!((taken(&board, 0).len(), direct.take_fault()), (8, None));
}

#[test]
fn set_priority_invalidates_at_previous_and_current_redistributors() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    direct.set_priority(device.block.first(), Priority::new(0x43)).unwrap();
    let lpi = device.lpi(0);
    let cached = [0, 1].map(|cpu| board.world().rd(cpu).config_of(lpi).unwrap());
    assert_eq!(cached, [0x43; 2], "0x40, RES1, enabled");
    let foreign = HwIrq::new(8195);
    let refused = direct.set_priority(foreign, Priority::new(0));
    assert_eq!(refused, Err(MsiError::UnknownVector(foreign)));
}

#[test]
fn a_direct_lpis_pending_state_can_be_changed_but_not_read() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 1).unwrap();
    let hwirq = device.block.first();
    direct.set_pending(hwirq, Pending::Set);
    assert_eq!(direct.is_pending(hwirq), None);
    assert_eq!(taken(&board, 1), [hwirq.get()]);
    device.fire(&board, 0);
    direct.set_pending(hwirq, Pending::Clear);
    assert_eq!((direct.is_pending(hwirq), taken(&board, 1)), (None, vec![]));
}

#[test]
fn clear_pending_clears_at_every_previous_target() {
    let board = Board::new(3, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    for to in [1, 2] {
        device.fire(&board, 0);
        device.relocate(&board, &direct, 0, to, &|| ()).unwrap();
    }
    device.fire(&board, 0);
    assert_eq!(board.world().pending_at(device.lpi(0)), [0, 1, 2]);
    direct.set_pending(device.block.first(), Pending::Clear);
    assert_eq!(board.world().pending_at(device.lpi(0)), [0u32; 0]);
}
