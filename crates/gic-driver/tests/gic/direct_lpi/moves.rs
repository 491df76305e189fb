//! Tests for moving vectors to another CPU.

use super::endpoint::{Endpoint, StoreKind, attach, request, taken};
use crate::fake::{Board, REDISTRIBUTOR};
use gic_driver::gic_arch::Lpi;
use msi_types::{Cpu, Fit, MoveOutcome, MsiError, MsiParent, Rewrite, Shape};
use std::num::NonZeroU16;

const ANY: Fit = Fit::new(Rewrite::Masked);

#[test]
fn a_move_invalidates_the_configuration_cached_at_the_new_target() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    // Both redistributors have the LPI cached as disabled. Enabling the LPI only invalidates at its
    // target.
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let lpi = device.lpi(0);
    assert_eq!(board.world().rd(1).config_of(lpi).unwrap() & 1, 0);
    device.relocate(&board, &direct, 0, 1, &|| ()).unwrap();
    device.fire(&board, 0);
    assert_eq!(taken(&board, 1), [lpi]);
}

#[test]
fn a_vectors_target_is_the_cpu_that_its_message_addresses() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let block = direct.allocate(&attach(&direct), &request(ANY, 1, 0)).unwrap();
    let lpi = Lpi::try_from(block.first().get()).unwrap();
    let message_cpu = || {
        let address = direct.compose(&block, 0).unwrap().address;
        [0, 1].map(Cpu::new).into_iter().find(|cpu| direct.doorbell(*cpu) == Some(address))
    };
    for outcome in [MoveOutcome::RolledBack, MoveOutcome::Written] {
        let moved = direct.begin_move(&block, 0, Cpu::new(1)).unwrap();
        assert_eq!(direct.target(lpi), Some(Cpu::new(0)), "the move has not ended");
        direct.end_move(moved, outcome).unwrap();
        assert_eq!(direct.target(lpi), message_cpu(), "{outcome:?}");
    }
    assert_eq!(direct.target(lpi), Some(Cpu::new(1)));
    direct.free(&attach(&direct), block);
    assert_eq!(direct.target(lpi), None);
}

#[test]
fn an_unmaskable_endpoint_moves_only_if_one_store_suffices() {
    let board = Board::new(2, 1);
    let direct = board.direct_lpi().unwrap();
    for (kind, low, high) in [
        (StoreKind::Words, true, false),
        (StoreKind::Atomic64, true, true),
        (StoreKind::Masked, true, true),
        (StoreKind::Fixed, false, false),
    ] {
        for (to, possible) in [(1, low), (2, high)] {
            let device = Endpoint::new(&direct, kind, 1, 0).unwrap();
            // The device sends a message at each point where it could see a partially written
            // message; the bus panics on a message that mixes old and new words.
            let result = device.relocate(&board, &direct, 0, to, &|| device.fire(&board, 0));
            let expected = if possible { Ok(1) } else { Err(MsiError::WouldTear) };
            assert_eq!(result.map(NonZeroU16::get), expected, "{kind:?} to {to}");
            if !possible {
                // No move has begun, so the vector still works at its old target and can be moved
                // elsewhere.
                device.fire(&board, 0);
                assert!(taken(&board, 0).contains(&device.lpi(0)));
            }
        }
    }
}

#[test]
fn independent_vectors_move_one_by_one() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let request = request(ANY, 4, 0).with_shape(Shape::Independent);
    let block = direct.allocate(&attach(&direct), &request).unwrap();
    let moved = direct.begin_move(&block, 2, Cpu::new(1)).unwrap();
    assert_eq!((moved.first, moved.count.get()), (block.hwirq(2).unwrap(), 1));
    direct.end_move(moved, MoveOutcome::Written).unwrap();
    let bases: Vec<_> =
        (0..4).map(|index| direct.compose(&block, index).unwrap().address).collect();
    let [here, there] = [REDISTRIBUTOR + 0x40, REDISTRIBUTOR + 0x2_0040];
    assert_eq!(bases, [here, here, there, here]);
}

#[test]
fn moving_to_a_fifth_cpu_resends_the_lpi_at_its_previous_target() {
    let board = Board::new(5, 0);
    let direct = board.direct_lpi().unwrap();
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    direct.mask(device.block.first());
    for to in 1..4 {
        device.fire(&board, 0);
        device.relocate(&board, &direct, 0, to, &|| ()).unwrap();
    }
    assert_eq!(board.world().pending_at(device.lpi(0)), [0, 1, 2]);
    device.relocate(&board, &direct, 0, 4, &|| ()).unwrap();
    assert_eq!(board.world().pending_at(device.lpi(0)), [3], "resent at its previous target");
    direct.unmask(device.block.first());
    assert_eq!(taken(&board, 3), [device.lpi(0)]);
}

/// Number of register accesses for 100 operations, and of spurious handler runs in 100 moves.
#[derive(PartialEq, Eq, Debug)]
struct Cost {
    moved: u32,
    masked: u32,
    freed: u32,
    spurious: usize,
}

/// Moves a vector across all CPUs round-robin while each CPU takes its interrupts. The vector is
/// masked and unmasked after each move, and freed at the end.
fn cost(cpus: u32) -> Cost {
    const MOVES: u32 = 100;
    let board = Board::new(cpus, 0);
    let direct = board.direct_lpi().unwrap();
    let accesses = || (0..cpus).map(|cpu| board.world().rd(cpu).direct_writes).sum::<u32>();
    let counted = |operation: &mut dyn FnMut()| {
        let before = accesses();
        operation();
        accesses() - before
    };
    let device = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    let mut cost = Cost { moved: 0, masked: 0, freed: 0, spurious: 0 };
    for to in (0..cpus).cycle().skip(1).take(MOVES as usize) {
        cost.moved += counted(&mut || _ = device.relocate(&board, &direct, 0, to, &|| ()).unwrap());
        cost.masked += counted(&mut || direct.mask(device.block.first()));
        direct.unmask(device.block.first());
        cost.spurious += (0..cpus).map(|cpu| taken(&board, cpu).len()).sum::<usize>();
    }
    let mut block = Some(device.block);
    cost.freed = counted(&mut || direct.free(&attach(&direct), block.take().unwrap())) * 100;
    cost
}

#[test]
fn move_mask_and_free_cost_the_same_with_8_and_64_cpus() {
    let cost = [1, 2, 4, 8, 64].map(cost);
    let expected = |moved, masked, freed, spurious| Cost { moved, masked, freed, spurious };
    assert_eq!(cost[0], expected(0, 400, 900, 0), "a single CPU leaves no target to move to");
    assert_eq!(cost[1], expected(400, 800, 1800, 0));
    assert_eq!(cost[2], expected(400, 1588, 3600, 0));
    assert_eq!(cost[3], expected(532, 1196, 1800, 33));
    assert_eq!(cost[4], cost[3]);
}
