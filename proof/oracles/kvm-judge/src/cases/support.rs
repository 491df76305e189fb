//! What the cases share: their count, the machines, and guests in the midst of a plan.

use kvm_judge::kvm::KvmMachine;
use kvm_judge::layout::CPUS;
use kvm_judge::model::ModelMachine;
use kvm_judge::scenario::{Guest, Plan, fire};
use kvm_judge::{Failure, Machine, Snapshot, saving};

/// The revision of KVM's GIC before the newest.
const OLD: u8 = 2;

/// The number of cases that passed and failed.
#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) passed: u32,
    pub(super) failed: u32,
}

impl Count {
    pub(super) fn case(&mut self, name: &str, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => {
                println!("ok - {name}");
                self.passed += 1;
            }
            Err(error) => {
                println!("not ok - {name}: {error}");
                self.failed += 1;
            }
        }
    }
}

/// Makes a machine.
pub(super) type Make = fn() -> Result<Box<dyn Machine>, Failure>;

pub(super) fn kvm() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(KvmMachine::new()?))
}

pub(super) fn model() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(ModelMachine::new()?))
}

pub(super) fn old_kvm() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(KvmMachine::at_revision(OLD)?))
}

pub(super) fn old_model() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(ModelMachine::at_revision(OLD)?))
}

/// A machine whose guest is in the midst of a plan.
pub(super) struct Fired {
    pub(super) machine: Box<dyn Machine>,
    /// Interrupts that each vCPU acknowledged and did not end.
    pub(super) taken: Vec<u32>,
    pub(super) snapshot: Snapshot,
}

impl Fired {
    pub(super) fn of(plan: &Plan, make: Make) -> Result<Self, Failure> {
        let mut machine = make()?;
        let taken = carry_out(&mut *machine, plan)?;
        let snapshot = saving::save(&mut *machine)?;
        Ok(Self { machine, taken, snapshot })
    }
}

/// Returns what each vCPU took.
pub(super) fn carry_out(machine: &mut dyn Machine, plan: &Plan) -> Result<Vec<u32>, Failure> {
    let mut guest = Guest::boot(machine, plan)?;
    fire(machine, &mut guest, plan)?;
    (0..CPUS).map(|cpu| machine.take(cpu)).collect()
}

pub(super) fn accept(good: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(otherwise().into()) }
}
