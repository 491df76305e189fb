//! Scenarios for 1-of-N interrupts, which fire while PEs begin or cease to participate.

use super::explore;
use super::wired_model::{LINE, WiredMachine, index, spawn};
use crate::VgicConfig;
use crate::wired::participation::{AWAKE, GROUP};
use alloc::sync::Arc;
use gic_arch::gicd::Irouter;
use gic_arch::ich::ListRegisterState::{self, Invalid, Pending};
use msi_types::Cpu;
use shuttle::thread;

const CPUS: [Cpu; 2] = [Cpu::new(0), Cpu::new(1)];

/// Creates a machine with a 1-of-N SPI, in which these PEs participate.
fn machine(participants: &[Cpu]) -> Arc<WiredMachine> {
    let machine = WiredMachine::of(&VgicConfig { one_of_n: true, ..VgicConfig::new(2) });
    let any = Irouter::new().with_any_participating(true);
    machine.wired.set_route(index().intid(), |_| any.into_bits());
    let machine = Arc::new(machine);
    for cpu in CPUS {
        machine.wired.set_participation(cpu, GROUP[0], AWAKE);
        if participants.contains(&cpu) {
            machine.join(cpu);
        }
    }
    machine
}

impl WiredMachine {
    fn join(&self, cpu: Cpu) {
        self.wired.set_participation(cpu, AWAKE, 0);
    }

    fn withdraw(&self, cpu: Cpu) {
        self.wired.set_participation(cpu, 0, AWAKE);
    }

    /// Sleeps on the thread of a vCPU that has left. After each kick, looks for the interrupt, and
    /// leaves again if there is none. Returns `None` if the vCPU is awake because it found the
    /// interrupt, or the number of kicks that it has responded to.
    fn sleeps(&self, cpu: Cpu) -> Option<usize> {
        let mut heard = 0;
        for _ in 0..40 {
            thread::yield_now();
            let kicks = self.kicks.count(cpu);
            if kicks > heard {
                heard = kicks;
                self.word(cpu).returned();
                if !self.word(cpu).leave_unless(|| self.ready(cpu).is_some()) {
                    return None;
                }
            }
        }
        Some(heard)
    }

    /// Checks that the interrupt is at this PE, and that its vCPU was kicked if it left.
    fn check(&self, cpu: Cpu, left: bool) {
        let state = self.wired.state(cpu, index());
        assert!(state.ready_at(cpu), "the interrupt is not at the participating PE: {state:?}");
        assert!(self.ready(cpu).is_some(), "the interrupt is not a candidate");
        let kicks = self.kicks.count(cpu);
        assert!(kicks <= 1 && (!left || kicks == 1), "the vCPU sleeps despite its interrupt");
    }
}

/// The interrupt fires while one of the PEs stops participating in 1-of-N delivery. The other PE's
/// vCPU is asleep.
fn fires_while_one_withdraws([withdraws, stays]: [Cpu; 2]) {
    let machine = machine(&CPUS);
    machine.word(stays).leave();
    let device = spawn(&machine, |machine| assert!(machine.wired.pulse(LINE).is_some()));
    machine.withdraw(withdraws);
    device.join().unwrap();
    machine.check(stays, true);
}

#[test]
fn an_interrupt_firing_while_its_pe_withdraws_targets_the_other_pe() {
    explore(|| fires_while_one_withdraws(CPUS));
    explore(|| fires_while_one_withdraws([CPUS[1], CPUS[0]]));
}

/// The interrupt fires while the only participating PE wakes up, and then sleeps in WFI.
fn fires_while_one_joins() {
    let machine = machine(&[]);
    let device = spawn(&machine, |machine| assert!(machine.wired.pulse(LINE).is_some()));
    machine.join(CPUS[1]);
    let left = machine.word(CPUS[1]).leave_unless(|| machine.ready(CPUS[1]).is_some());
    device.join().unwrap();
    machine.check(CPUS[1], left);
}

#[test]
fn a_pending_one_of_n_interrupt_targets_a_joining_pe() {
    explore(fires_while_one_joins);
}

/// The interrupt fires again while it is in a list register and its PE withdraws.
fn withdraws_while_listed(guest: ListRegisterState) {
    let machine = machine(&CPUS);
    assert!(machine.wired.pulse(LINE).is_some());
    let holder = machine.wired.state(CPUS[0], index()).target().unwrap();
    let other = CPUS[1 - holder.index()];
    let filled = machine.fill(holder).unwrap();
    machine.word(other).leave();
    let sleeper = {
        let machine = machine.clone();
        thread::spawn(move || machine.sleeps(other))
    };
    let vcpu = spawn(&machine, move |machine| machine.exit(holder, Some((filled, guest))));
    let device = spawn(&machine, |machine| assert!(machine.wired.pulse(LINE).is_some()));
    machine.withdraw(holder);
    vcpu.join().unwrap();
    device.join().unwrap();
    let heard = sleeper.join().unwrap();
    assert!(machine.wired.state(CPUS[0], index()).ready_at(other));
    assert!(machine.ready(other).is_some(), "the interrupt is not a candidate");
    let is_awake = heard.is_none_or(|heard| machine.kicks.count(other) > heard);
    assert!(is_awake, "the vCPU sleeps despite its interrupt");
}

#[test]
fn a_listed_interrupt_moves_to_the_other_pe_when_its_pe_withdraws() {
    for guest in [Pending, Invalid] {
        explore(move || withdraws_while_listed(guest));
    }
}
