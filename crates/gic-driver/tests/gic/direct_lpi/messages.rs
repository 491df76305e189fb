//! Tests for messages and the endpoints that can store them.

use super::endpoint::{Endpoint, StoreKind, attach, request, taken};
use crate::fake::{Board, HIGH_REDISTRIBUTOR, REDISTRIBUTOR};
use msi_types::{Cpu, Fit, MoveOutcome, MsiError, MsiMessage, MsiParent, Rewrite};

const ANY: Fit = Fit::new(Rewrite::Masked);

#[test]
fn a_message_writes_the_intid_to_the_targets_setlpir() {
    let board = Board::new(2, 1);
    let direct = board.direct_lpi().unwrap();
    for (cpu, base) in [(0, REDISTRIBUTOR), (1, REDISTRIBUTOR + 0x2_0000), (2, HIGH_REDISTRIBUTOR)]
    {
        let device = Endpoint::new(&direct, StoreKind::Masked, 1, cpu).unwrap();
        assert_eq!(device.message(), MsiMessage { address: base + 0x40, data: device.lpi(0) });
        device.fire(&board, 0);
        assert_eq!(taken(&board, cpu), [device.lpi(0)]);
    }
    assert_eq!(direct.doorbells().count(), 3);
}

#[test]
fn lpis_below_65536_are_kept_for_16_bit_endpoints() {
    let board = Board::new(1, 0);
    board.world().distributor.typer.set_id_bits_minus_one(16);
    let direct = board.direct_lpi().unwrap();
    let short = ANY.with_data_bits(16);
    let allocate =
        |fit| direct.allocate(&attach(&direct), &request(fit, 1, 0)).unwrap().first().get();
    assert_eq!((allocate(ANY), allocate(short)), (65536, 8192));
    // Allocate all remaining LPIs that fit in 16 bits.
    let low = 65536 - 8193;
    for _ in 0..low {
        allocate(short);
    }
    let refused = direct.allocate(&attach(&direct), &request(short, 1, 0));
    assert_eq!(refused, Err(MsiError::DataTooWide { data: 65536, bits: 16 }));
    assert_eq!(allocate(ANY), 65537);
}

#[test]
fn a_32_bit_endpoint_cannot_use_a_doorbell_above_4_gib() {
    let board = Board::new(1, 1);
    let direct = board.direct_lpi().unwrap();
    let narrow = ANY.with_address_bits(32);
    let too_wide = MsiError::AddressTooWide { address: HIGH_REDISTRIBUTOR + 0x40, bits: 32 };
    let free = direct.gic().lpis().unwrap().available();
    assert_eq!(direct.allocate(&attach(&direct), &request(narrow, 1, 1)), Err(too_wide));
    assert_eq!(direct.gic().lpis().unwrap().available(), free);
    let block = direct.allocate(&attach(&direct), &request(narrow, 1, 0)).unwrap();
    assert_eq!(direct.begin_move(&block, 0, Cpu::new(1)).unwrap_err(), too_wide);
}

#[test]
fn a_group_is_aligned_and_moves_together() {
    let board = Board::new(2, 0);
    let direct = board.direct_lpi().unwrap();
    let _odd = Endpoint::new(&direct, StoreKind::Masked, 1, 0).unwrap();
    for count in [2, 8, 32] {
        let device = Endpoint::new(&direct, StoreKind::Masked, count, 0).unwrap();
        assert!(device.lpi(0).is_multiple_of(count.into()));
        let moved = direct.begin_move(&device.block, count - 1, Cpu::new(1)).unwrap();
        assert_eq!(
            (moved.first.get(), moved.count.get()),
            (device.lpi(0), count),
            "the move applies to the whole group"
        );
        direct.end_move(moved, MoveOutcome::RolledBack).unwrap();
        device.relocate(&board, &direct, count / 2, 1, &|| ()).unwrap();
        (0..count).for_each(|index| device.fire(&board, index));
        assert_eq!(taken(&board, 1), (0..count).map(|index| device.lpi(index)).collect::<Vec<_>>());
    }
}
