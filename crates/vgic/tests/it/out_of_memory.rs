//! Tests that an exhausted heap causes an error or a guest fault, without partial effects, and
//! never an abort.

mod commands;
mod creation;
mod random;
mod registers;
mod state;

use crate::saved_state::board::{self, Board};
use doorbell_test_support::guest::{Interface, Machine, Ram};
use doorbell_test_support::with_allocations;
use gic_arch::gits;
use gic_arch::its::Command;
use vgic::{FaultReason, VgicConfig, VmMemory};

/// Returns `true` if the ITS has completed its queue, while no allocation succeeds.
fn is_idle(machine: &Machine<VmMemory<Ram>, impl Interface>) -> bool {
    with_allocations(0, || machine.is_queue_done())
}

/// Makes the ITS execute commands with a heap that fails after the given number of allocations.
/// Returns `true` if the commands succeed.
fn run_with(
    machine: &Machine<VmMemory<Ram>, impl Interface>,
    allocations: u32,
    commands: impl IntoIterator<Item = Command>,
) -> bool {
    let faults = || machine.gic.command_faults(0).unwrap().count;
    let (before, end) = (faults(), machine.prepare(commands));
    with_allocations(allocations, || machine.write_gits(gits::CWRITER, end));
    is_idle(machine) && faults() == before
}

fn out_of_memory(board: &Board) -> u64 {
    board.gic.events().count(FaultReason::OutOfMemory)
}

/// Returns the registers whose accesses have exhausted the heap since the last call.
fn starved_registers(board: &Board) -> Vec<u64> {
    let mut registers = Vec::new();
    board.gic.events().drain(|fault| {
        registers.extend((fault.reason == FaultReason::OutOfMemory).then_some(fault.address));
    });
    registers
}

fn config() -> VgicConfig {
    board::config()
}
