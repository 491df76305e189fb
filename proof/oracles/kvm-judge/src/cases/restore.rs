//! Restores states with one fault each. KVM's answers must be those of the table, and the model
//! must interpret the states that KVM accepts as KVM does.

use super::count::{Count, accept};
use super::fired::{kvm, model};
use kvm_judge::damage::{Damaged, different_answers};
use kvm_judge::kvm::KvmMachine;
use kvm_judge::layout::{CPUS, SPECIAL};
use kvm_judge::scenario::acknowledge_all;
use kvm_judge::{Failure, saving};

pub(super) fn run(count: &mut Count) {
    let judged = different_answers(kvm, restore);
    let judged = judged.and_then(|rows| accept(rows.is_empty(), || rows.join("; ")));
    count.case("states with one fault", judged);
}

/// Restores a state on KVM and, if KVM accepts it, on the model, and compares the interrupts that
/// the vCPUs receive.
fn restore(damaged: &Damaged) -> Result<(), Failure> {
    let (mut kvm, mut model) = (KvmMachine::with_memory(&damaged.ranges)?, model()?);
    saving::restore(&mut kvm, &damaged.snapshot)?;
    saving::restore(&mut *model, &damaged.snapshot)?;
    let untaken = [SPECIAL; CPUS as usize];
    let theirs = acknowledge_all(&mut kvm, &untaken)?;
    let ours = acknowledge_all(&mut *model, &untaken)?;
    accept(theirs == ours, || format!("KVM {theirs:?}, Doorbell {ours:?}"))
}
