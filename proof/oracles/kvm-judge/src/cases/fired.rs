//! Machines that have been stopped while their guest is in the middle of a plan.

use kvm_judge::kvm::KvmMachine;
use kvm_judge::model::ModelMachine;
use kvm_judge::scenario::{Plan, carry_out};
use kvm_judge::{Failure, Machine, Snapshot, saving};

/// Creates a machine.
pub(super) type Make = fn() -> Result<Box<dyn Machine>, Failure>;

pub(super) fn kvm() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(KvmMachine::new()?))
}

pub(super) fn model() -> Result<Box<dyn Machine>, Failure> {
    Ok(Box::new(ModelMachine::new()?))
}

/// A machine whose guest is in the middle of a plan.
pub(super) struct Fired {
    pub(super) machine: Box<dyn Machine>,
    /// For each vCPU, the interrupt that it has acknowledged but not ended.
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
