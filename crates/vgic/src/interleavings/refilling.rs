//! Scenarios in which a vCPU fills its list registers again without an exit.

use super::explore_random;
use super::model::{
    EXECUTIONS, Machine, SPI, count, is_one_listed, list_registers, machine, movi, spawn, sync,
};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::SeqCst};
use msi_types::{Cpu, Level, Line, SetLine};

/// `ICH_ELRSR_EL2` of a guest that has ended its interrupts.
const EMPTY: u16 = u16::MAX;

/// An interrupt arrives while a vCPU refills its list registers, whose interrupts the guest has
/// ended. Either the interrupt must be in a list register afterwards, or the vCPU must have been
/// kicked since.
fn arrives_at_a_refill(has_ended_one: bool, arrive: fn(&Machine)) {
    let (machine, [vcpu, _]) = machine();
    machine.enable_spi();
    if has_ended_one {
        machine.send();
    }
    let mut vcpu = vcpu.with_list_registers(list_registers()).unwrap();
    let mut guest = vcpu.enter();
    assert_eq!(is_one_listed(&guest), has_ended_one);
    let device = spawn(&machine, arrive);
    let before = machine.kicks.count(Cpu::new(0));
    let stays = guest.refill(EMPTY);
    device.join().unwrap();
    let is_kicked = machine.kicks.count(Cpu::new(0)) > before;
    let is_listed = is_one_listed(&guest);
    assert!(!stays || is_listed || is_kicked, "the guest continues without the interrupt");
    let registers = *guest.interface();
    guest.exit(&registers);
    assert!(is_one_listed(&vcpu.enter()), "the interrupt was lost");
}

fn arrives(arrive: fn(&Machine)) {
    for has_ended_one in [false, true] {
        explore_random(EXECUTIONS, move || arrives_at_a_refill(has_ended_one, arrive));
    }
}

#[test]
fn no_message_is_missed_at_a_refill() {
    arrives(Machine::send);
}

#[test]
fn no_spi_is_missed_at_a_refill() {
    arrives(|machine| {
        machine.gic.set_line(Line::Spi(SPI.get()), Level::High);
    });
}

/// A vCPU refills its list register with the second of two messages, concurrently with MOVI.
fn a_refilled_message_moves() {
    let (machine, [old, mut new]) = machine();
    machine.send();
    let mut old = old.with_list_registers(list_registers()).unwrap();
    let mut guest = old.enter();
    machine.send();
    let is_listed = Arc::new(AtomicBool::new(false));
    let commands = {
        let is_listed = is_listed.clone();
        spawn(&machine, move |machine| {
            machine.command(&[movi(1), sync(0)]);
            assert!(!is_listed.load(SeqCst), "the LPI is still listed at the old vCPU");
        })
    };
    let stays = guest.refill(EMPTY);
    if stays {
        is_listed.store(is_one_listed(&guest), SeqCst);
        machine.linger();
        is_listed.store(false, SeqCst);
    }
    let registers = *guest.interface();
    guest.exit(&registers);
    commands.join().unwrap();
    assert!(!is_one_listed(&old.enter()), "pending at the old vCPU");
    assert_eq!(count(&mut new), 1, "one message is not handled yet");
}

#[test]
fn a_refilled_message_moves_once() {
    explore_random(EXECUTIONS, a_refilled_message_moves);
}
