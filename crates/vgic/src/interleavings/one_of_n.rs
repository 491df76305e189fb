//! Scenarios for 1-of-N interrupts, which fire while PEs begin or cease to participate.

use super::explore;
use super::machine::Kicks;
use crate::VgicConfig;
use crate::wakeup::{VcpuWakeup, WakeupWord};
use crate::wired::index::WiredIndex;
use crate::wired::participation::{AWAKE, GROUP};
use crate::wired::{Filled, Forwarding, Wired};
use alloc::sync::Arc;
use gic_arch::IntId;
use gic_arch::gicd::Irouter;
use gic_arch::ich::ListRegister;
use gic_arch::ich::ListRegisterState::{self, Invalid, Pending};
use msi_types::{Cpu, Line};
use shuttle::thread;

const CPUS: [Cpu; 2] = [Cpu::new(0), Cpu::new(1)];
const SPI: u32 = 40;
const LINE: Line = Line::Spi(SPI);

/// A machine with an edge-triggered, enabled 1-of-N SPI.
struct Machine {
    wired: Wired,
    wakeup: Arc<VcpuWakeup>,
    kicks: Arc<Kicks>,
}

fn index() -> WiredIndex {
    WiredIndex::of(IntId::new(SPI)).unwrap()
}

/// Creates a machine in which these PEs participate.
fn machine(participants: &[Cpu]) -> Arc<Machine> {
    let kicks = Kicks::new();
    let wakeup = Arc::new(VcpuWakeup::new(CPUS.len(), kicks.clone()).unwrap());
    let config = VgicConfig { one_of_n: true, ..VgicConfig::new(2) };
    let wired = Wired::new(&config, wakeup.clone()).unwrap();
    wired.set_control(|_| 0b11);
    let any = Irouter::new().with_any_participating(true);
    wired.set_route(index().intid(), |_| any.into_bits());
    wired.change(CPUS[0], index().intid(), |state| state.with_edge(true).with_enabled(true));
    let machine = Arc::new(Machine { wired, wakeup, kicks });
    for cpu in CPUS {
        machine.wired.set_participation(cpu, GROUP[0], AWAKE);
        if participants.contains(&cpu) {
            machine.join(cpu);
        }
    }
    machine
}

impl Machine {
    fn join(&self, cpu: Cpu) {
        self.wired.set_participation(cpu, AWAKE, 0);
    }

    fn withdraw(&self, cpu: Cpu) {
        self.wired.set_participation(cpu, 0, AWAKE);
    }

    fn word(&self, cpu: Cpu) -> &WakeupWord {
        &self.wakeup.words()[cpu.index()]
    }

    /// Returns `true` if the vCPU finds the interrupt.
    fn finds(&self, cpu: Cpu) -> bool {
        let mut found = false;
        self.wired.ready(cpu, |_, _| found = true);
        found
    }

    /// Enters the guest with the interrupt in a list register.
    fn fill(&self, cpu: Cpu) -> Filled {
        self.word(cpu).enter();
        let mut seen = None;
        self.wired.listable(cpu, |_, state| seen = Some(state));
        self.wired.list(cpu, index(), seen.unwrap(), Forwarding::Enabled).unwrap()
    }

    /// Exits the guest, which left the list register in this state.
    fn exit(&self, cpu: Cpu, filled: Filled, left: ListRegisterState) {
        let left = ListRegister::new().with_state(left);
        let _ = self.wired.fold(cpu, index(), filled, left);
        self.word(cpu).returned();
        self.wakeup.folded(self.word(cpu));
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
                if !self.word(cpu).leave_unless(|| self.finds(cpu)) {
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
        assert!(self.finds(cpu), "the interrupt is not a candidate");
        let kicks = self.kicks.count(cpu);
        assert!(kicks <= 1 && (!left || kicks == 1), "the vCPU sleeps despite its interrupt");
    }
}

fn spawn(
    machine: &Arc<Machine>,
    act: impl FnOnce(&Machine) + Send + 'static,
) -> thread::JoinHandle<()> {
    let machine = machine.clone();
    thread::spawn(move || act(&machine))
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
    let left = machine.word(CPUS[1]).leave_unless(|| machine.finds(CPUS[1]));
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
    let filled = machine.fill(holder);
    machine.word(other).leave();
    let sleeper = {
        let machine = machine.clone();
        thread::spawn(move || machine.sleeps(other))
    };
    let vcpu = spawn(&machine, move |machine| machine.exit(holder, filled, guest));
    let device = spawn(&machine, |machine| assert!(machine.wired.pulse(LINE).is_some()));
    machine.withdraw(holder);
    vcpu.join().unwrap();
    device.join().unwrap();
    let heard = sleeper.join().unwrap();
    assert!(machine.wired.state(CPUS[0], index()).ready_at(other));
    assert!(machine.finds(other), "the interrupt is not a candidate");
    let is_awake = heard.is_none_or(|heard| machine.kicks.count(other) > heard);
    assert!(is_awake, "the vCPU sleeps despite its interrupt");
}

#[test]
fn a_listed_interrupt_moves_to_the_other_pe_when_its_pe_withdraws() {
    for guest in [Pending, Invalid] {
        explore(move || withdraws_while_listed(guest));
    }
}
