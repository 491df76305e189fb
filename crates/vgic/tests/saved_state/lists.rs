//! Tests for vCPUs with list registers. A vCPU must leave guest mode before it is saved. The
//! restored vCPU may run with or without list registers.

use crate::board::{Board, mapd, mapti};
use gic_arch::gicd::Irouter;
use gic_arch::ich::{ListRegisterState, Vtr};
use gic_arch::{IntId, gicd, icc};
use msi_types::{Level, Line, SetLine};
use vgic::{ListRegisterVcpu, VirtualInterface};

/// Returns `ICH_VTR_EL2` for a CPU with the given number of list registers.
fn vtr(count: u8) -> Vtr {
    Vtr::new()
        .with_list_regs_minus_one(count - 1)
        .with_pri_bits_minus_one(4)
        .with_pre_bits_minus_one(4)
}

/// Enters vCPU 0's guest with list registers. Returns the machine with the other vCPUs, the guest,
/// and its interface.
fn entered(mut board: Board) -> (Board, vgic::InGuest, VirtualInterface) {
    let vcpu = board.vcpus.remove(0).with_list_registers(vtr(4)).unwrap();
    let guest = vcpu.enter();
    let interface = *guest.interface();
    (board, guest, interface)
}

fn states(interface: &VirtualInterface) -> Vec<(u32, ListRegisterState)> {
    let listed =
        interface.list.iter().filter(|register| register.state() != ListRegisterState::Invalid);
    listed.map(|register| (register.virtual_intid(), register.state())).collect()
}

fn with_level_and_lpi() -> Board {
    let board = Board::running();
    board.run([mapd(5, 3, 0x4010_0000), mapti(5, 0, 8192, 0)]);
    board.enable_spi(40);
    let route = Irouter::to(board.gic.config().cpus[0].affinity);
    board.write_gicd(gicd::irouter(IntId::new(40)).unwrap(), route);
    board.gic.set_line(Line::Spi(40), Level::High);
    board.send(5, 0);
    board
}

/// Exits from the guest, then saves the machine and restores the state into a new machine.
fn moved(mut board: Board, vcpu: ListRegisterVcpu) -> Board {
    board.vcpus.insert(0, vcpu.into_software());
    board.moved()
}

#[test]
fn list_registers_are_saved_as_pending_or_active() {
    let (board, guest, mut interface) = entered(with_level_and_lpi());
    assert_eq!(
        states(&interface),
        [(40, ListRegisterState::Pending), (8192, ListRegisterState::Pending)]
    );
    // The guest acknowledges the SPI.
    interface.list[0] = interface.list[0].with_state(ListRegisterState::Active);
    interface.active_priorities[1][0] = 1;

    let mut moved = moved(board, guest.exit(&interface));

    assert_eq!(moved.acknowledge(0), 1023, "the running interrupt has the highest priority");
    moved.gic.set_line(Line::Spi(40), Level::Low);
    moved.end(0, 40);
    assert_eq!(moved.handle_all(0), [8192]);
}

#[test]
fn an_active_interrupt_is_listed_after_restore() {
    let mut board = with_level_and_lpi();
    assert_eq!(board.acknowledge(0), 40);
    let mut moved = board.moved();
    // Read the CPU's inputs, which drops interrupts from the ready bitmap that are no longer
    // pending.
    assert!(!moved.vcpus[0].inputs().any());

    let (_, guest, interface) = entered(moved);

    assert!(states(&interface).contains(&(40, ListRegisterState::Active)));
    assert_eq!(interface.active_priorities[1][0], 1);
    drop(guest.exit(&interface));
}

#[test]
fn regained_list_registers_get_active_interrupts() {
    let (mut board, guest, mut interface) = entered(with_level_and_lpi());
    interface.list[0] = interface.list[0].with_state(ListRegisterState::Active);
    interface.active_priorities[1][0] = 1;
    let mut vcpu = guest.exit(&interface).into_software();
    assert_eq!(vcpu.read_sysreg(icc::IAR1.encoding()), Ok(1023));
    board.vcpus.insert(0, vcpu);

    let (_, guest, interface) = entered(board);

    assert!(states(&interface).contains(&(40, ListRegisterState::Active)));
    drop(guest.exit(&interface));
}
