//! Tests with states that a guest creates through the model's public interface. Each state is
//! saved, written as JSON, and read again, as by the command.

mod commands;
mod guest;
mod hostile;
mod kept;
mod rules;

use super::file;
use super::lint::{self, Rule};
use super::machine::Machine;
use vgic::saved_state::SavedState;
use vgic_kvm::snapshot::KvmSnapshot;

/// Reads the JSON of a state of the model.
fn of_model(state: &SavedState) -> Machine {
    file::parse("model", &serde_json::to_vec(state).unwrap()).unwrap()
}

/// Reads the JSON of a KVM snapshot.
fn of_kvm(snapshot: &KvmSnapshot) -> Machine {
    file::parse("kvm", &serde_json::to_vec(snapshot).unwrap()).unwrap()
}

/// Returns the rules that find something.
fn rules(machine: &Machine) -> Vec<Rule> {
    let mut rules: Vec<_> = lint::check(machine).iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}

/// Returns the only finding, with its place and message.
#[track_caller]
fn only(machine: &Machine) -> (Rule, String, String) {
    let findings = lint::check(machine);
    let [finding] = findings.as_slice() else { panic!("{findings:#?}") };
    (finding.rule, finding.place.clone(), finding.message.clone())
}
