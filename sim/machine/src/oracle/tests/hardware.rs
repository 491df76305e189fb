//! Tests the judge against simulated hardware whose state is known, using random histories and
//! injected faults.

use super::{CPUS, Rig};
use crate::oracle::Pending;
use proptest::prelude::*;
use std::sync::atomic::Ordering;

#[derive(Clone, Copy, Debug)]
enum Op {
    Send,
    Move(usize),
    /// If the interrupt is pending at the CPU, the CPU takes it and runs its handler.
    Run(usize),
    /// If the interrupt is pending at the CPU, the CPU takes it while its handler runs elsewhere,
    /// and the interrupt core resends it.
    Defer(usize),
    /// A CPU that is not the target goes offline. The driver then resends the interrupt to the
    /// target; if the flag is set, the driver does so only if the interrupt was pending.
    Leave(usize, bool),
    /// A fault: the handler runs although the interrupt is not pending at the CPU.
    RunForNothing(usize),
    /// A fault: the interrupt becomes pending without a report.
    ResendSecretly(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let cpu = 0..CPUS;
    prop_oneof![
        6 => Just(Op::Send),
        3 => cpu.clone().prop_map(Op::Move),
        6 => cpu.clone().prop_map(Op::Run),
        2 => cpu.clone().prop_map(Op::Defer),
        2 => (cpu.clone(), any::<bool>()).prop_map(|(cpu, known)| Op::Leave(cpu, known)),
        1 => cpu.clone().prop_map(Op::RunForNothing),
        1 => cpu.prop_map(Op::ResendSecretly),
    ]
}

/// The reason why the interrupt is pending at a CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bit {
    Clear,
    Rightly,
    /// An unreported resend.
    Secretly,
}

/// The pending bits: one per CPU, or a single one for all CPUs.
struct Hardware {
    rig: Rig,
    /// If all CPUs share one bit, only the first element is used.
    bits: [Bit; CPUS],
    target: usize,
    /// Number of faulty runs that the judge should report.
    faults: u64,
}

impl Hardware {
    fn new(pending: Pending) -> Self {
        Self { rig: Rig::new(pending), bits: [Bit::Clear; CPUS], target: 0, faults: 0 }
    }

    fn play(&self, steps: &str) {
        self.rig.play("random history", steps);
    }

    fn bit(&mut self, cpu: usize) -> &mut Bit {
        let index = if self.rig.pending == Pending::Stays { cpu } else { 0 };
        &mut self.bits[index]
    }

    /// Returns the pending bit that this CPU sees.
    fn pending_at(&mut self, cpu: usize) -> Bit {
        let is_elsewhere = self.rig.pending == Pending::Travels && cpu != self.target;
        if is_elsewhere { Bit::Clear } else { *self.bit(cpu) }
    }

    fn nothing_is_pending(&mut self, cpu: usize) -> bool {
        *self.bit(cpu) == Bit::Clear
    }

    fn act(&mut self, op: Op) {
        match op {
            Op::Send => {
                self.play("send");
                let target = self.target;
                *self.bit(target) = Bit::Rightly;
            }
            Op::Move(to) => {
                self.play(&format!("move {to}"));
                self.target = to;
            }
            Op::Run(cpu) if self.pending_at(cpu) != Bit::Clear => {
                self.faults += u64::from(self.pending_at(cpu) == Bit::Secretly);
                self.run(cpu);
            }
            Op::Defer(cpu) if self.pending_at(cpu) != Bit::Clear => self.defer(cpu),
            Op::Leave(cpu, known) if self.rig.pending == Pending::Stays && cpu != self.target => {
                self.leave(cpu, known);
            }
            Op::RunForNothing(cpu) if self.nothing_is_pending(cpu) => {
                self.faults += 1;
                self.run(cpu);
            }
            Op::ResendSecretly(cpu) if self.nothing_is_pending(cpu) => {
                *self.bit(cpu) = Bit::Secretly;
            }
            Op::Run(_)
            | Op::Defer(_)
            | Op::Leave(..)
            | Op::RunForNothing(_)
            | Op::ResendSecretly(_) => {}
        }
    }

    fn run(&mut self, cpu: usize) {
        self.play(&format!("run {cpu}"));
        *self.bit(cpu) = Bit::Clear;
    }

    fn defer(&mut self, cpu: usize) {
        self.play(&format!("take {cpu}, resend {}, deferred", self.target));
        let deferred = std::mem::replace(self.bit(cpu), Bit::Clear);
        let target = self.target;
        let target = self.bit(target);
        if *target == Bit::Clear || deferred == Bit::Rightly {
            *target = deferred;
        }
    }

    fn leave(&mut self, cpu: usize, known: bool) {
        match std::mem::replace(&mut self.bits[cpu], Bit::Clear) {
            _ if !known => self.resend("guess"),
            Bit::Clear => {}
            Bit::Rightly | Bit::Secretly => self.resend("carry"),
        }
        self.play(&format!("emptied {cpu}"));
    }

    fn resend(&mut self, verb: &str) {
        self.play(&format!("{verb} {}", self.target));
        self.bits[self.target] = Bit::Rightly;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_oracle_reports_exactly_the_unjustified_handler_runs(
        ops in prop::collection::vec(op(), 1..120),
        travels: bool,
    ) {
        let mut hardware = Hardware::new(if travels { Pending::Travels } else { Pending::Stays });
        for op in ops {
            hardware.act(op);
        }
        let record = &hardware.rig.record;
        let told =
            record.wrong_cpu.load(Ordering::Relaxed) + record.spurious.load(Ordering::Relaxed);
        prop_assert_eq!(told, hardware.faults);
    }
}
