//! Tests for managed interrupts, which follow a set of CPUs.

use crate::board::{Board, Device, relocate, request};
use msi_types::{Cpu, MsiError, MsiParent, RequesterId, Rewrite, Shape};
use x86_irq::{ApicVector, Arrival};

const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);
const CPU2: Cpu = Cpu::new(2);
/// Number of vectors per CPU.
const ALL: u32 = 12;

fn managed(board: &Board, serial: u32) -> Device {
    Device::managed(&*board.domain, serial, Rewrite::Masked, CPU0, &[CPU0, CPU1]).unwrap()
}

/// Allocates every free vector of a CPU.
fn fill(board: &Board, cpu: Cpu) -> Vec<Device> {
    let device = |serial| Device::new(&*board.domain, serial, Rewrite::Masked, cpu);
    (100..).map_while(|serial| device(serial).ok()).collect()
}

/// Returns the number of free vectors of each CPU.
fn free(board: &Board) -> Vec<u32> {
    board.cpus().map(|cpu| board.domain.available_on(cpu)).collect()
}

#[test]
fn a_managed_move_needs_no_free_vector() {
    let board = Board::new(3);
    let mut follower = managed(&board, 1);
    let mut other = Device::new(&*board.domain, 2, Rewrite::Masked, CPU0).unwrap();
    let others = fill(&board, CPU1);
    assert_eq!(u32::try_from(others.len()), Ok(ALL - 1));
    let taken = MsiError::NotReachable(CPU1, "its vectors are taken");
    assert_eq!(relocate(&board, &mut other, CPU1), Err(taken));
    relocate(&board, &mut follower, CPU1).unwrap();
    assert!(board.write(follower.message, follower.serial));
    assert_eq!(board.run(CPU1)[0].arrival, Arrival::Deliver(follower.vector()));
}

#[test]
fn a_managed_interrupt_moves_only_within_its_cpu_set() {
    let board = Board::new(3);
    let mut follower = managed(&board, 1);
    let refused = MsiError::NotReachable(CPU2, "the interrupt is managed for other CPUs");
    assert_eq!(relocate(&board, &mut follower, CPU2), Err(refused));
    assert_eq!(board.domain.cpu_vector(follower.vector()).unwrap().cpu, CPU0);
}

#[test]
fn freeing_a_managed_interrupt_frees_reserved_vectors() {
    for moves in 0..4 {
        let board = Board::new(3);
        let mut follower = managed(&board, 1);
        assert_eq!(free(&board), [ALL - 1, ALL - 1, ALL]);
        for to in [CPU1, CPU0, CPU1].into_iter().take(moves) {
            relocate(&board, &mut follower, to).unwrap();
        }
        follower.free(&*board.domain);
        board.cpus().for_each(|cpu| board.clean_up(cpu));
        assert_eq!(free(&board), [ALL; 3], "{moves} moves");
        assert_eq!(board.domain.hwirqs_in_use(), 0);
    }
}

#[test]
fn a_managed_block_that_fails_halfway_frees_everything() {
    let board = Board::new(2);
    let mut others = fill(&board, CPU1);
    others.pop().unwrap().free(&*board.domain);
    board.cpus().for_each(|cpu| board.clean_up(cpu));
    let state = || (free(&board), board.domain.hwirqs_in_use());
    let before = state();
    assert_eq!(before, (vec![ALL, 1], others.len()));

    let attachment = board.domain.attach(RequesterId::new(1), 2).unwrap();
    let two = request(2, Shape::Independent, Rewrite::Masked, CPU0);
    let refused = board.domain.allocate_managed(&attachment, &two, &[CPU0, CPU1]);
    assert_eq!(refused, Err(MsiError::NoVectors { wanted: 2 }));
    assert_eq!(state(), before);
    for vector in 0x20..=0x2b {
        let arrival = board.domain.arrive(CPU0, ApicVector::new(vector).unwrap());
        assert_eq!(arrival, Arrival::Unknown, "{vector:#x}");
    }
    let allocated = board.domain.allocate(&attachment, &two);
    assert!(allocated.is_ok(), "a failure must not use up the quota");
}

#[test]
fn a_managed_request_for_a_cpu_outside_its_set_reserves_nothing() {
    let board = Board::new(2);
    let refused = Device::managed(&*board.domain, 1, Rewrite::Masked, CPU0, &[CPU1]).unwrap_err();
    assert_eq!(refused, MsiError::NoVectors { wanted: 1 });
    assert_eq!(free(&board), [ALL; 2]);
}

#[test]
fn an_endpoint_with_fixed_data_is_refused() {
    let board = Board::new(3);
    for rewrite in [Rewrite::AddressOnly, Rewrite::LowWordOnly, Rewrite::Never] {
        let refused = Device::managed(&*board.domain, 1, rewrite, CPU0, &[CPU0, CPU1]).unwrap_err();
        assert_eq!(refused, MsiError::WouldTear);
        assert_eq!(free(&board), [ALL; 3]);
    }
}
