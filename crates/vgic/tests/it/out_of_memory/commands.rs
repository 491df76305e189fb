//! Tests for ITS commands with an exhausted heap.

use super::{is_idle, out_of_memory, run_with, starved_registers};
use crate::saved_state::board::Board;
use doorbell_test_support::guest::{discard, inv, mapc, mapd, mapti, movall, movi, unmapc, unmapd};
use doorbell_test_support::{failures_until, with_allocations};
use gic_arch::gits;
use gic_arch::its::Command;
use msi_types::Delivery;
use vgic::its::CommandFault;
use vgic::saved_state::{ItsState, SaveError};
use vgic::{OutOfMemory, Progress};

const DEVICE: u32 = 0x205;
const ITT: u64 = 0x4000_0100;

/// Returns the ITS's state with the offsets of the command queue set to zero.
fn mappings(board: &mut Board) -> ItsState {
    let mut its = board.save().its.remove(0);
    (its.creadr, its.cwriter) = (0, 0);
    its
}

/// Executes `before`, then retries `command` with an increasing number of allocations that succeed.
/// Checks that every failure leaves the mappings unchanged. Returns the number of failures.
fn fails_whole(before: &[Command], command: Command) -> u32 {
    let opcode = command.opcode();
    failures_until(|allocations| {
        let mut board = Board::running();
        board.run(before.iter().copied());
        let mapped = mappings(&mut board);
        let is_done = run_with(&board, allocations, [command]);
        if !is_done {
            assert!(is_idle(&board));
            let faults = board.gic.command_faults(0).unwrap();
            let last = faults.last.map(|command| command.fault);
            assert_eq!((faults.count, last), (1, Some(CommandFault::OutOfMemory(opcode))));
            assert_eq!(out_of_memory(&board), 1);
            assert_eq!(mappings(&mut board), mapped);
            assert!(run_with(&board, u32::MAX, [command]), "the command must succeed with memory");
        }
        assert_ne!(mappings(&mut board), mapped);
        is_done
    })
}

/// MAPD allocates a node and the data of its devices, and MOVI the ready bits of a level, its pages,
/// and a page.
#[test]
fn mapd_mapc_and_movi_without_heap_roll_back() {
    let mapped = [mapd(DEVICE, 3, ITT), mapti(DEVICE, 3, 8200, 0)];
    for (before, command, failures) in [
        (&[][..], mapd(DEVICE, 8, ITT), 2),
        (&[mapc(3, 0)], mapc(4, 1), 1),
        (&mapped, movi(DEVICE, 3, 1), 3),
    ] {
        assert_eq!(fails_whole(before, command), failures, "{command}");
    }
}

#[test]
fn mapti_without_heap_rolls_back() {
    let failures = fails_whole(&[mapd(DEVICE, 8, ITT)], mapti(DEVICE, 3, 8200, 1));
    assert!(failures >= 8, "{failures} allocations failed");
}

#[test]
fn inv_without_heap_keeps_the_configuration() {
    let failures = failures_until(|allocations| {
        let mut board = Board::running();
        board.run([mapd(DEVICE, 3, ITT), mapti(DEVICE, 3, 8200, 0)]);
        let mapped = mappings(&mut board);
        board.configure(8200, true, 0x40);
        let is_done = run_with(&board, allocations, [inv(DEVICE, 3)]);
        assert_eq!(mappings(&mut board) == mapped, !is_done);
        assert_eq!(board.send(DEVICE, 3), Delivery::Pending);
        assert_eq!(board.handle_all(0), [8200]);
        is_done
    });
    assert!(failures >= 3, "{failures} allocations failed");
}

#[test]
fn unmapping_commands_need_no_memory() {
    let mut board = Board::running();
    board.run([mapd(DEVICE, 12, ITT), mapd(1, 3, ITT)]);
    board.run((0..200).map(|event| mapti(DEVICE, event * 20, 8192 + event, 1)));
    assert_eq!(board.send(DEVICE, 60), Delivery::Pending);
    let anew = mapd(1, 3, ITT + 0x100);
    assert!(run_with(&board, 0, [discard(DEVICE, 40), unmapc(1), unmapd(DEVICE), anew]));
    assert_eq!(board.send(DEVICE, 60), Delivery::Blocked);
    assert!(mappings(&mut board).devices.iter().all(|device| device.device.get() == 1));
}

/// Moves a collection to another vCPU, whose ready bitmap has no memory for the collection's events
/// yet.
#[test]
fn mapc_and_movall_stay_in_progress_without_memory() {
    let begin = |allocations, command: Command| {
        let board = Board::running();
        board.run([mapd(DEVICE, 3, ITT), mapti(DEVICE, 3, 8200, 0), mapti(DEVICE, 4, 8201, 0)]);
        assert_eq!(board.send(DEVICE, 4), Delivery::Pending);
        (run_with(&board, allocations, [command]), board)
    };
    for command in [mapc(0, 1), movall(0, 1)] {
        let failures = failures_until(|allocations| {
            let (is_done, mut board) = begin(allocations, command);
            if !is_done {
                assert!(!is_idle(&board), "the command must be in progress");
                assert_eq!(out_of_memory(&board), 1, "the fault must be reported once");
                let queue = board.gic.config().its[0].base + u64::from(gits::CREADR.offset());
                assert_eq!(starved_registers(&board), [queue]);
                assert_eq!(board.gic.command_faults(0).unwrap().count, 0);
                with_allocations(0, || assert_eq!(board.send(DEVICE, 3), Delivery::Pending));
                let _ = board.save(); // completes it
                assert!(is_idle(&board));
                let (here, there) = (board.handle_all(0), board.handle_all(1));
                assert!(there.contains(&8201), "{there:?}");
                assert_eq!(here.len() + there.len(), 2, "{here:?} {there:?}");
            }
            is_done
        });
        assert!(failures >= 2, "{failures} allocations failed");
    }
}

#[test]
fn a_save_without_memory_to_finish_a_command_is_an_error() {
    let mut board = Board::running();
    board.run([mapd(DEVICE, 3, ITT), mapti(DEVICE, 3, 8200, 0)]);
    assert!(!run_with(&board, 0, [mapc(0, 1)]));
    let gic = board.gic.clone();
    let paused = board.pause();
    let saved = with_allocations(1, || gic.save().map(drop));
    assert_eq!(saved, Err(SaveError::OutOfMemory(OutOfMemory)));
    drop(paused);
    assert!(board.gic.poll() == Progress::Done && is_idle(&board), "polling finishes the command");
}
