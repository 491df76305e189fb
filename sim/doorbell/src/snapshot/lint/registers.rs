//! Checks of registers that are absent or refused.

use super::rule::{Report, Rule};
use crate::snapshot::kvm::{describe, name};
use crate::snapshot::machine::{Machine, Problem};

pub(super) fn check(machine: &Machine, report: &mut Report<'_>) {
    for problem in &machine.problems {
        match problem {
            Problem::Absent(device, attribute) => {
                let message = "the snapshot contains no value for it".to_owned();
                report(Rule::MissingAttribute, name(*device, *attribute), message);
            }
            Problem::Ignored(device, attribute) => {
                let interrupts = machine.config.spis + 32;
                let message = format!("the machine has {interrupts} INTIDs, and no such register");
                report(Rule::IgnoredAttribute, name(*device, *attribute), message);
            }
            Problem::Refused(register, errno) => {
                let place = name(register.device, register.attribute);
                let message = format!(
                    "KVM refuses the value {:#x} with {}",
                    register.value,
                    describe(*errno)
                );
                report(Rule::RefusedAttribute, place, message);
            }
            Problem::NotRestorable(error) => {
                report(Rule::NotRestorable, "the machine".to_owned(), error.clone());
            }
            _ => {}
        }
    }
}
