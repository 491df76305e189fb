//! The rule against hardware that is known: random histories, and faults put into them.

use super::{CPUS, Rig};
use crate::oracle::Pending;
use gic_driver::direct_lpi::ResendReason;
use msi_types::Cpu;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

#[derive(Clone, Copy, Debug)]
enum Op {
    Send,
    Move {
        to: usize,
    },
    /// If it is pending there: the CPU takes it and runs its handler.
    Run {
        cpu: usize,
    },
    /// If it is pending there: the CPU takes it while its handler runs elsewhere, and the interrupt core sends it again.
    Defer {
        cpu: usize,
    },
    /// A CPU that is not the target leaves, and what was pending there, if that can be known, goes along.
    Leave {
        cpu: usize,
        known: bool,
    },
    /// A fault: the handler runs though it is not pending there.
    RunForNothing {
        cpu: usize,
    },
    /// A fault: it becomes pending, and nobody tells.
    ResendSecretly {
        cpu: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0..CPUS;
    prop_oneof![
        6 => Just(Op::Send),
        3 => cpu.clone().prop_map(|to| Op::Move { to }),
        6 => cpu.clone().prop_map(|cpu| Op::Run { cpu }),
        2 => cpu.clone().prop_map(|cpu| Op::Defer { cpu }),
        2 => (cpu.clone(), any::<bool>()).prop_map(|(cpu, known)| Op::Leave { cpu, known }),
        1 => cpu.clone().prop_map(|cpu| Op::RunForNothing { cpu }),
        1 => cpu.prop_map(|cpu| Op::ResendSecretly { cpu }),
    ]
}

/// Why it is pending at a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bit {
    Clear,
    Rightly,
    /// Nobody told.
    Secretly,
}

/// One pending bit for each CPU.
struct Hardware {
    rig: Rig,
    bits: [Bit; CPUS],
    target: usize,
    /// Runs that the rule has to tell.
    faults: u64,
}

impl Hardware {
    fn new() -> Self {
        Self { rig: Rig::new(Pending::Stays), bits: [Bit::Clear; CPUS], target: 0, faults: 0 }
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Send => {
                self.rig.send();
                self.bits[self.target] = Bit::Rightly;
            }
            Op::Move { to } => {
                self.rig.move_to(number(to));
                self.target = to;
            }
            Op::Run { cpu } if self.bits[cpu] != Bit::Clear => {
                self.faults += u64::from(self.bits[cpu] == Bit::Secretly);
                self.run(cpu);
            }
            Op::Defer { cpu } if self.bits[cpu] == Bit::Rightly => {
                self.rig.defer_at(number(cpu));
                self.bits[cpu] = Bit::Clear;
                self.resend(ResendReason::Requested);
            }
            Op::Leave { cpu, known } if cpu != self.target => self.leave(cpu, known),
            Op::RunForNothing { cpu } if self.bits[cpu] == Bit::Clear => {
                self.faults += 1;
                self.run(cpu);
            }
            Op::ResendSecretly { cpu } if self.bits[cpu] == Bit::Clear => self.bits[cpu] = Bit::Secretly,
            Op::Run { .. }
            | Op::Defer { .. }
            | Op::Leave { .. }
            | Op::RunForNothing { .. }
            | Op::ResendSecretly { .. } => {}
        }
    }

    fn run(&mut self, cpu: usize) {
        self.rig.run_at(number(cpu));
        self.bits[cpu] = Bit::Clear;
    }

    fn leave(&mut self, cpu: usize, known: bool) {
        match std::mem::replace(&mut self.bits[cpu], Bit::Clear) {
            _ if !known => self.resend(ResendReason::Unknowable),
            Bit::Clear => {}
            Bit::Rightly | Bit::Secretly => self.resend(ResendReason::Carried),
        }
        self.rig.routes.emptied(Cpu::new(number(cpu)));
    }

    fn resend(&mut self, reason: ResendReason) {
        self.rig.resend_to(number(self.target), reason);
        self.bits[self.target] = Bit::Rightly;
    }
}

fn number(cpu: usize) -> u32 {
    u32::try_from(cpu).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn each_run_that_nothing_called_for_is_told_and_no_other(
        ops in prop::collection::vec(op(), 1..120),
    ) {
        let mut hardware = Hardware::new();
        for op in ops {
            hardware.act(op);
        }
        let ledger = &hardware.rig.ledger;
        let told = ledger.wrong_cpu.load(Ordering::Relaxed) + ledger.spurious.load(Ordering::Relaxed);
        prop_assert_eq!(told, hardware.faults);
    }
}
