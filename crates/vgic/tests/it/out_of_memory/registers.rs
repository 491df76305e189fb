//! Tests for registers that enable LPIs and ITSes, with an exhausted heap.

use super::{config, out_of_memory, starved_registers};
use crate::saved_state::board::Board;
use doorbell_test_support::guest::{mapc, mapd, mapti};
use doorbell_test_support::{failures_until, with_allocations};
use gic_arch::gicr::{self, Ctlr as GicrCtlr};
use gic_arch::gits::{self, Ctlr};
use gic_arch::its::Command;
use msi_types::{Delivery, MsiMessage, NoIdentity, SignalMsi};
use vgic::{AccessWidth, GuestMemory, VgicConfig};

const ITT: u64 = 0x4000_0100;
/// The pending table of vCPU 0.
const PENDING: u64 = 0x4008_0000;

fn ctlr(board: &Board) -> GicrCtlr {
    let address = board.gic.config().redistributors[0].base + u64::from(gicr::CTLR.offset());
    GicrCtlr::from(u32::try_from(board.gic.read(address, AccessWidth::Word).unwrap()).unwrap())
}

fn enable(board: &Board) {
    board.write_gicr(0, gicr::CTLR, GicrCtlr::new().with_enable_lpis(true));
}

fn is_enabled(board: &Board) -> bool {
    ctlr(board).enable_lpis()
}

fn pending_byte(board: &Board) -> u8 {
    let mut byte = [0];
    board.ram.read(PENDING + 8192 / 8, &mut byte).unwrap();
    byte[0]
}

/// Creates a machine whose vCPU 0 has LPIs disabled and LPI 8192 in its pending table. LPI 8200 is
/// mapped.
fn with_pending_table(config: VgicConfig, commands: &[Command]) -> Board {
    let mut board = Board::new(config);
    board.start();
    board.run(commands.iter().copied());
    board.write_gicr(0, gicr::CTLR, GicrCtlr::new());
    assert!(!is_enabled(&board));
    board.ram.write(PENDING + 8192 / 8, &[1]).unwrap();
    board
}

/// Checks that `EnableLPIs` remains zero until the required memory can be allocated, and that no
/// pending LPI is lost. Returns the number of failures.
fn enables_or_not(make: impl Fn() -> Board, expected: &[u64]) -> u32 {
    failures_until(|allocations| {
        let mut board = make();
        with_allocations(allocations, || enable(&board));
        let is_done = is_enabled(&board);
        if !is_done {
            assert_eq!(out_of_memory(&board), 1);
            let frame = board.gic.config().redistributors[0].base;
            assert_eq!(starved_registers(&board), [frame + u64::from(gicr::CTLR.offset())]);
            assert!(!ctlr(&board).rwp());
            assert_eq!(pending_byte(&board), 1);
            assert!(board.handle_all(0).is_empty());
            enable(&board);
            assert!(is_enabled(&board));
        }
        let mut handled = board.handle_all(0);
        handled.sort_unstable();
        assert_eq!(handled, expected);
        with_allocations(0, || board.write_gicr(0, gicr::CTLR, GicrCtlr::new()));
        assert!(!is_enabled(&board));
        is_done
    })
}

#[test]
fn lpis_without_heap_stay_disabled() {
    let commands = [mapd(1, 3, ITT), mapti(1, 0, 8200, 0)];
    let failures = enables_or_not(|| with_pending_table(config(), &commands), &[8192]);
    assert!(failures >= 2, "{failures} allocations failed");
}

#[test]
fn direct_lpis_without_heap_stay_disabled() {
    let make = || {
        let config =
            config().with_its(Vec::new()).with_message_based_spis(false).with_direct_lpi(true);
        let board = Board::new(config);
        board.provide_lpi_tables(0);
        board
    };
    let failures = failures_until(|allocations| {
        let board = make();
        with_allocations(allocations, || enable(&board));
        let is_done = is_enabled(&board);
        assert_eq!(out_of_memory(&board), u64::from(!is_done));
        let ring = MsiMessage {
            address: board.gic.config().redistributors[0].base + u64::from(gicr::SETLPIR.offset()),
            data: 8200,
        };
        let delivery = with_allocations(0, || board.gic.signal_msi(NoIdentity, ring));
        assert_eq!(delivery == Delivery::Pending, is_done);
        is_done
    });
    assert!(failures >= 14, "{failures} allocations failed");
}

/// The collection is mapped again while the ITS is enabled. The guest then disables the ITS,
/// changes the configuration of the LPI, and enables the ITS while the heap is exhausted.
#[test]
fn an_its_without_heap_stays_disabled() {
    let failures = failures_until(|allocations| {
        let mut board = Board::running();
        board.run([mapd(1, 3, ITT), mapti(1, 0, 8200, 0), mapc(0, 0)]);
        board.write_gits(gits::CTLR, Ctlr::new());
        board.configure(8200, true, 0x40);
        let enable = || board.write_gits(gits::CTLR, Ctlr::new().with_enabled(true));
        with_allocations(allocations, enable);
        let is_enabled = || board.read_gits(gits::CTLR) & 1 != 0;
        let is_done = is_enabled();
        if !is_done {
            assert_eq!(out_of_memory(&board), 1);
            let control = board.gic.config().its[0].base + u64::from(gits::CTLR.offset());
            assert_eq!(starved_registers(&board), [control]);
            with_allocations(0, || assert_eq!(board.send(1, 0), Delivery::Blocked));
            enable();
            assert!(is_enabled());
        }
        assert_eq!(board.send(1, 0), Delivery::Pending);
        assert_eq!(board.handle_all(0), [8200]);
        is_done
    });
    assert!(failures >= 3, "{failures} allocations failed");
}
