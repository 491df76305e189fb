//! Tests with states that a guest creates through the model's public interface. Each test saves a
//! state, writes the state as JSON, and reads the JSON like the command.

mod commands;
mod guest;
mod hostile;
mod rules;

use super::file;
use super::lint::{self, Rule};
use super::machine::Machine;
use vgic::saved_state::SavedState;
use vgic_kvm::snapshot::KvmSnapshot;

/// Converts a state of the model to JSON, and reads the JSON.
fn of_model(state: &SavedState) -> Machine {
    file::parse("model", &serde_json::to_vec(state).unwrap()).unwrap()
}

/// Converts a KVM snapshot to JSON, and reads the JSON.
fn of_kvm(snapshot: &KvmSnapshot) -> Machine {
    file::parse("kvm", &serde_json::to_vec(snapshot).unwrap()).unwrap()
}

/// Returns the rules that have findings.
fn rules(machine: &Machine) -> Vec<Rule> {
    let mut rules: Vec<_> = lint::check(machine).iter().map(|finding| finding.rule).collect();
    rules.dedup();
    rules
}
