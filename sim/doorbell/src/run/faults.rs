//! Errors that `doorbell lint` finds in the description of the machine that was run. A run can be
//! clean despite them, because it exercises only what the description says.

use crate::print::{Output, wrapped};
use crate::wording::counted;
use doorbell_inspection::{Raw, Source};
use gic_firmware::lint::{self, KnownRegisters};
use gic_firmware::{Finding, Severity};
use std::collections::BTreeSet;
use std::io::{self, Write};

/// The errors of a description.
#[derive(Debug)]
pub(super) struct Faults<'s> {
    pub(super) findings: Vec<Finding>,
    source: &'s Source,
}

impl<'s> Faults<'s> {
    /// Checks a description. Warnings and notes are left to `doorbell lint`.
    pub(super) fn of(source: &'s Source) -> Self {
        let mut findings = lint::check(&source.description, &KnownRegisters::default());
        findings.retain(|finding| finding.severity() == Severity::Error);
        Self { findings, source }
    }

    /// Returns a one-sentence summary of the errors, or `None` if there are none.
    pub(super) fn hint(&self) -> Option<String> {
        if self.findings.is_empty() {
            return None;
        }
        let rules: BTreeSet<&str> =
            self.findings.iter().map(|finding| finding.rule.name()).collect();
        let rules = rules.into_iter().collect::<Vec<_>>().join(", ");
        let errors = counted(self.findings.len(), "error");
        let name = &self.source.name;
        let shown = match self.source.raw {
            Raw::Embedded => String::new(),
            _ => format!(": see `doorbell lint {name}`"),
        };
        Some(format!("lint finds {errors} in the description of this machine ({rules}){shown}"))
    }

    /// Prints the sentence about the errors, if there are any.
    pub(super) fn print(&self, out: &mut Output) -> io::Result<()> {
        match self.hint() {
            Some(hint) => writeln!(out, "{}", wrapped(&hint)),
            None => Ok(()),
        }
    }
}
