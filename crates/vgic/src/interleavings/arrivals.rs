//! Checks the arrivals of interrupts at a vCPU in guest mode, which moves them into its list
//! registers.

use super::explore_random;
use super::model::{
    DEVICE, EXECUTIONS, VgicMachine, count, is_one_listed, list_registers, machine, spawn,
    start_moving,
};
use core::sync::atomic::Ordering::SeqCst;
use gic_arch::ich::ListRegister;
use msi_types::Cpu;

/// An interrupt arrives while the guest runs, and the vCPU lists what has arrived. The interrupt
/// must be in the list register afterwards, or the vCPU must be kicked again or exit.
fn arrives_in_guest_mode(arrive: fn(&VgicMachine)) {
    let (machine, [vcpu, _]) = machine();
    machine.enable_spi();
    let mut vcpu = vcpu.with_list_registers(list_registers()).unwrap();
    let device = spawn(&machine, arrive);
    let mut guest = vcpu.enter();
    let kicks = machine.kicks.count(Cpu::new(0));
    guest.returned();
    let vmcr = guest.interface().vmcr;
    let continues = is_one_listed(&guest) || guest.list_arrivals(vmcr, u32::MAX);
    device.join().unwrap();
    let is_kicked = machine.kicks.count(Cpu::new(0)) > kicks;
    let is_listed = is_one_listed(&guest);
    assert!(is_listed || is_kicked || !continues, "the guest continues without the interrupt");
    let registers = *guest.interface();
    guest.exit(&registers);
    assert!(is_one_listed(&vcpu.enter()), "the interrupt was lost");
}

#[test]
fn an_interrupt_arriving_in_guest_mode_is_not_missed() {
    explore_random(EXECUTIONS, || arrives_in_guest_mode(VgicMachine::send));
    explore_random(EXECUTIONS, || arrives_in_guest_mode(VgicMachine::fire));
}

/// MOVI and SYNC execute while a vCPU in guest mode lists the event's LPI, which has ended before
/// if `before` is set.
fn an_arrival_moves(before: bool) {
    let (machine, [old, mut new]) = machine();
    let mut old = old.with_list_registers(list_registers()).unwrap();
    if before {
        machine.send();
    }
    let mut guest = old.enter();
    machine.send();
    let (is_listed, commands) = start_moving(&machine);
    let vmcr = guest.interface().vmcr;
    is_listed.store(guest.list_arrivals(vmcr, u32::MAX) && is_one_listed(&guest), SeqCst);
    machine.linger();
    is_listed.store(false, SeqCst);
    let registers = *guest.interface();
    guest.exit(&registers);
    commands.join().unwrap();
    assert!(!is_one_listed(&old.enter()), "pending at the old vCPU");
    assert_eq!(count(&mut new), 1, "one interrupt for the second message");
}

#[test]
fn an_lpi_arriving_in_guest_mode_moves_to_its_new_vcpu_once() {
    explore_random(EXECUTIONS, || an_arrival_moves(false));
    explore_random(EXECUTIONS, || an_arrival_moves(true));
}

/// MOVI and SYNC execute while a vCPU in guest mode lists the event's LPI at its message. If
/// `before` is set, the vCPU has acknowledged the LPI once since it entered.
fn a_message_moves_at_its_arrival(before: bool) {
    let (machine, [old, mut new]) = machine();
    let mut old = old.with_list_registers(list_registers()).unwrap();
    if before {
        machine.send();
    }
    let mut guest = old.enter();
    let (is_listed, commands) = start_moving(&machine);
    let mut registers = *guest.interface();
    let vmcr = registers.vmcr;
    registers.list[0] = ListRegister::new();
    if guest.list_message(DEVICE, VgicMachine::message(), vmcr, u32::MAX).is_some() {
        is_listed.store(true, SeqCst);
        registers = *guest.interface();
    } else {
        machine.send();
    }
    machine.linger();
    is_listed.store(false, SeqCst);
    guest.exit(&registers);
    commands.join().unwrap();
    assert!(!is_one_listed(&old.enter()), "pending at the old vCPU");
    assert_eq!(count(&mut new), 1, "one interrupt for the message");
}

#[test]
fn a_message_listed_on_arrival_moves_to_its_new_vcpu_once() {
    explore_random(EXECUTIONS, || a_message_moves_at_its_arrival(false));
    explore_random(EXECUTIONS, || a_message_moves_at_its_arrival(true));
}

/// The LPI arrives again after the guest has ended it. An SPI arrives while the vCPU lists the LPI
/// again.
fn arrives_beside_a_repetition() {
    let (machine, [vcpu, _]) = machine();
    machine.enable_spi();
    let mut vcpu = vcpu.with_list_registers(list_registers()).unwrap();
    machine.send();
    let mut guest = vcpu.enter();
    machine.send();
    let device = spawn(&machine, VgicMachine::fire);
    guest.returned();
    let kicks = machine.kicks.count(Cpu::new(0));
    let vmcr = guest.interface().vmcr;
    let continues = guest.list_arrivals(vmcr, u32::MAX);
    device.join().unwrap();
    let is_kicked = machine.kicks.count(Cpu::new(0)) > kicks;
    assert!(is_kicked || !continues, "the guest continues without the SPI");
    let registers = *guest.interface();
    guest.exit(&registers);
}

#[test]
fn an_spi_arriving_while_an_lpi_is_relisted_is_not_lost() {
    explore_random(EXECUTIONS, arrives_beside_a_repetition);
}
