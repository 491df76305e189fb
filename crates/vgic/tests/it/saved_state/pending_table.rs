//! Tests for `GICR_PENDBASER.PTZ`, with which software states that the pending table is zero. The
//! statement applies only to the next time that LPIs are enabled.

use super::board::Board;
use doorbell_test_support::guest::{mapd, mapti};
use gic_arch::gicr::{Ctlr, Pendbaser};
use gic_arch::{IntId, gicr};
use msi_types::Delivery;
use vgic::saved_state::{Object, Problem};

const TABLE: u64 = 0x4008_0000;

fn enable(board: &Board, enable: bool) {
    board.write_gicr(0, gicr::CTLR, Ctlr::new().with_enable_lpis(enable));
}

fn promise_a_zero_table(board: &Board) {
    enable(board, false);
    let pendbaser = Pendbaser::new().with_address(TABLE).with_pending_table_zero(true);
    board.write_gicr(0, gicr::PENDBASER, pendbaser);
}

/// Creates a machine with LPI 8192 pending at vCPU 0, whose LPIs were enabled with `PTZ`.
fn enabled_with_the_promise() -> Board {
    let board = Board::running();
    board.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 0)]);
    promise_a_zero_table(&board);
    enable(&board, true);
    assert_eq!(board.send(5, 0), Delivery::Pending);
    board
}

#[test]
fn enabling_lpis_again_reads_the_pending_table_despite_ptz() {
    let mut board = enabled_with_the_promise();
    enable(&board, false);
    assert_eq!(board.acknowledge(0), 1023, "the LPI is in the table");

    enable(&board, true);

    assert_eq!(board.acknowledge(0), 8192);
}

#[test]
fn enabling_lpis_again_after_a_restore_reads_the_pending_table() {
    let mut board = enabled_with_the_promise().moved();
    enable(&board, false);
    enable(&board, true);
    assert_eq!(board.acknowledge(0), 8192);
}

#[test]
fn a_restored_ptz_applies_until_lpis_are_enabled() {
    let board = Board::running();
    promise_a_zero_table(&board);
    board.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 0)]);
    let (offset, bit) = gic_arch::lpi::pending_location(IntId::new(8192).try_into().unwrap());
    let mut board = board.moved();
    vgic::GuestMemory::write(&*board.ram, TABLE + offset, &[1 << bit]).unwrap();

    enable(&board, true);

    assert_eq!(board.acknowledge(0), 1023, "the table must not be read");
}

#[test]
fn a_state_with_enabled_lpis_and_ptz_is_refused() {
    let mut saved = enabled_with_the_promise().save();
    let cpu = &mut saved.cpus[0];
    assert!(!Pendbaser::from(cpu.redistributor.pendbaser).pending_table_zero());
    let with_promise = Pendbaser::from(cpu.redistributor.pendbaser).with_pending_table_zero(true);
    cpu.redistributor.pendbaser = with_promise.into_bits();
    let object = Object::Redistributor(cpu.affinity);
    let mut board = Board::running();

    let refused = board.try_restore(&saved);

    let problem = Problem::Value { field: "GICR_PENDBASER", value: with_promise.into_bits() };
    assert_eq!(refused.map_err(|error| (error.object, error.problem)), Err((object, problem)));
}
