//! The cases.

use kvm_judge::kvm::KvmMachine;
use kvm_judge::scenario::{Guest, Plan, acknowledge_all, fire};
use kvm_judge::{Failure, Snapshot, saving};

/// Plans that are tried.
const SEEDS: u64 = 8;

/// Runs all of them and prints their outcome.
pub(crate) fn run() {
    let mut count = Count::default();
    count.case("a snapshot of KVM", print_snapshot());
    for seed in 0..SEEDS {
        count.case(&format!("KVM to KVM, plan {seed}"), kvm_to_kvm(&Plan::of(seed)));
    }
    println!("total: {} passed, {} failed", count.passed, count.failed);
}

#[derive(Debug, Default)]
struct Count {
    passed: u32,
    failed: u32,
}

impl Count {
    fn case(&mut self, name: &str, outcome: Result<(), Failure>) {
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

/// What the first plan leaves in KVM, for the tests that have no KVM.
fn print_snapshot() -> Result<(), Failure> {
    let (mut machine, snapshot) = fired_kvm(&Plan::of(1))?;
    for line in snapshot.to_string().lines() {
        println!("snapshot - {line}");
    }
    println!("note - {:?}", acknowledge_all(&mut machine)?);
    Ok(())
}

/// The judge judged: what KVM saves, KVM restores.
fn kvm_to_kvm(plan: &Plan) -> Result<(), Failure> {
    let (mut machine, snapshot) = fired_kvm(plan)?;
    let mut restored = KvmMachine::new()?;
    saving::restore(&mut restored, &snapshot)?;
    let again = saving::save(&mut restored)?;
    accept(snapshot.differences(&again).is_empty(), || format!("{:?}", snapshot.differences(&again)))?;
    let (wanted, acknowledged) = (acknowledge_all(&mut machine)?, acknowledge_all(&mut restored)?);
    accept(wanted == acknowledged, || format!("{acknowledged:?}, not {wanted:?}"))?;
    accept(wanted.iter().all(|cpu| !cpu.is_empty()), || "nothing was pending".into())
}

fn fired_kvm(plan: &Plan) -> Result<(KvmMachine, Snapshot), Failure> {
    let mut machine = KvmMachine::new()?;
    Guest::boot(&mut machine, plan)?;
    fire(&mut machine, plan)?;
    let snapshot = saving::save(&mut machine)?;
    Ok((machine, snapshot))
}

fn accept(good: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if good { Ok(()) } else { Err(otherwise().into()) }
}
