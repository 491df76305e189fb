//! Errors that `doorbell lint` finds in the description of the machine that was run. A run can be
//! clean despite them, because it exercises only what the description says.

use crate::wording::counted;
use doorbell_inspection::{Raw, Source};
use gic_firmware::lint::{self, KnownRegisters};
use gic_firmware::{Finding, Severity};
use std::collections::BTreeSet;

/// Checks a description. Warnings and notes are left to `doorbell lint`.
pub(super) fn of(source: &Source) -> Vec<Finding> {
    let mut findings = lint::check(&source.description, &KnownRegisters::default());
    findings.retain(|finding| finding.severity() == Severity::Error);
    findings
}

/// Returns a one-sentence summary of a description's errors, or `None` if there are none.
pub(super) fn hint(source: &Source, errors: &[Finding]) -> Option<String> {
    if errors.is_empty() {
        return None;
    }
    let rules: BTreeSet<&str> = errors.iter().map(|finding| finding.rule.name()).collect();
    let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
    let errors = counted(errors.len(), "error");
    let shown = match source.raw {
        Raw::Embedded => String::new(),
        _ => format!(": see `doorbell lint {}`", source.name),
    };
    Some(format!("lint finds {errors} in the description of this machine ({rules}){shown}"))
}
