//! Tests for save and restore with an exhausted heap.

use super::config;
use crate::saved_state::board::Board;
use doorbell_test_support::guest::{mapc, mapd, mapti, movall};
use doorbell_test_support::{failures_until, with_allocations};
use vgic::OutOfMemory;
use vgic::saved_state::{Problem, SaveError};

const ITT: u64 = 0x4000_0100;

/// Creates a machine with many mappings, some pending LPIs, and one LPI that is pending at a
/// redistributor without an event.
fn busy() -> Board {
    let board = Board::running();
    board.enable_spi(40);
    board.raise(40);
    board.run([mapd(1, 3, ITT), mapd(0x305, 9, ITT + 0x100), mapc(9, 1)]);
    board.run(
        (0..40)
            .map(|event| mapti(0x305, event * 7, 8192 + event, u16::try_from(event % 3).unwrap())),
    );
    board.configure(8250, true, 0x20);
    board.run([mapti(1, 2, 8250, 9), mapti(1, 3, 8251, 0)]);
    for (device, event) in [(0x305, 0), (0x305, 7), (1, 2), (1, 3)] {
        board.send(device, event);
    }
    board.run([movall(0, 2)]);
    board
}

#[test]
fn a_save_without_heap_is_an_error() {
    let mut board = busy();
    let saved = board.save();
    let gic = board.gic.clone();
    let _paused = board.pause();
    let failures =
        failures_until(|allocations| match with_allocations(allocations, || gic.save()) {
            Ok(again) => again == saved,
            Err(error) => error != SaveError::OutOfMemory(OutOfMemory),
        });
    assert!(failures >= 10, "{failures} allocations failed");
}

#[test]
fn a_restore_without_heap_leaves_a_reset_machine() {
    let (saved, ram) = {
        let mut board = busy();
        (board.save(), board.ram.clone())
    };
    let failures = failures_until(|allocations| {
        let mut other = Board::over(config(), ram.clone());
        other.raise(41);
        let unused = other.unused();
        let gic = other.gic.clone();
        let paused = other.pause();
        match with_allocations(allocations, || gic.restore(&saved)) {
            Ok(()) => assert_eq!(gic.save(), Ok(saved.clone())),
            Err(error) => {
                assert_eq!(error.problem, Problem::OutOfMemory);
                assert_eq!(gic.save(), Ok(unused));
                return false;
            }
        }
        drop(paused);
        let handled: Vec<_> = (0..3).map(|cpu| other.handle_all(cpu)).collect();
        assert_eq!(handled.iter().map(Vec::len).sum::<usize>(), 4, "{handled:?}");
        true
    });
    assert!(failures >= 30, "{failures} allocations failed");
}
