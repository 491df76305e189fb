//! Tests for vCPUs with list registers. A vCPU must leave guest mode before it is saved. The
//! restored vCPU may run with or without list registers.

use super::board::Board;
use doorbell_test_support::guest::{listed, mapd, mapti};
use gic_arch::ich::ListRegisterState::{Active, Pending};
use vgic::ListRegisterVcpu;
use vgic::saved_state::SavedState;

/// Gives vCPU 0 list registers. Returns the machine with the other vCPUs, and the vCPU.
fn with_lists(mut board: Board) -> (Board, ListRegisterVcpu) {
    let vcpu = board.list_register_vcpu();
    (board, vcpu)
}

fn with_level_and_lpi() -> Board {
    let board = Board::running();
    board.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 0)]);
    board.enable_spi(40);
    board.route_to(40, 0);
    board.raise(40);
    board.send(5, 0);
    board
}

/// Saves a machine whose vCPU 0 has list registers.
fn saved(board: &mut Board, vcpu: &mut ListRegisterVcpu) -> SavedState {
    let gic = board.gic.clone();
    let _paused = (vcpu.pause(), board.pause());
    gic.save().unwrap()
}

/// Makes the guest acknowledge the SPI in its first list register.
fn acknowledge_listed(vcpu: &mut ListRegisterVcpu) {
    let inside = vcpu.enter();
    let mut left = *inside.interface();
    assert_eq!(listed(&left), [(40, Pending), (8192, Pending)]);
    left.list[0] = left.list[0].with_state(Active);
    left.active_priorities[1][0] = 1;
    inside.exit(&left);
}

#[test]
fn a_restored_list_register_vcpu_lists_its_interrupts() {
    let (mut board, mut vcpu) = with_lists(with_level_and_lpi());
    acknowledge_listed(&mut vcpu);
    let saved = saved(&mut board, &mut vcpu);
    let fresh = Board::over(board.gic.config().clone(), board.ram.clone());
    let (mut moved, mut vcpu) = with_lists(fresh);
    let inside = vcpu.enter();
    let empty = *inside.interface();
    inside.exit(&empty);

    let gic = moved.gic.clone();
    let paused = (vcpu.pause(), moved.pause());
    gic.restore(&saved).unwrap();
    drop(paused);

    let inside = vcpu.enter();
    assert_eq!(listed(inside.interface()), [(8192, Pending), (40, Active)]);
    assert_eq!(inside.interface().active_priorities[1][0], 1);
    assert!(inside.interface().vmcr.veng1());
}

#[test]
fn a_save_after_an_entry_without_an_exit_has_the_state_at_entry() {
    let (mut board, mut vcpu) = with_lists(with_level_and_lpi());
    let before = saved(&mut board, &mut vcpu);
    let _inside = vcpu.enter();
    assert_eq!(saved(&mut board, &mut vcpu), before);
    assert!(vcpu.in_guest().is_none());
}

#[test]
fn a_vcpu_with_a_leaked_pause_acknowledges_no_interrupt() {
    let mut board = with_level_and_lpi();
    let before = board.save();
    std::mem::forget(board.vcpus[0].pause());
    assert_eq!(board.acknowledge(0), 1023);
    assert_eq!(board.save(), before, "the second pause must not replace the saved interface");
    assert_eq!(board.acknowledge(0), 40, "the second resume completes both");
}
