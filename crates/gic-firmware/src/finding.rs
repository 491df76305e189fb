//! Findings: defects of the input that don't prevent reading it, collected up to a limit so that
//! hostile input can't exhaust memory.

use crate::origin::Origin;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

pub use crate::rule::{Rule, Severity};

/// Maximum number of distinct findings. After this many, the list ends with one more finding, which
/// states that the list is incomplete.
const MAX_FINDINGS: usize = 256;

/// A defect in firmware's description of the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Rule that firmware breaks.
    pub rule: Rule,
    /// Location in the input.
    pub origin: Origin,
    /// Details, for a human reader.
    pub message: String,
}

impl Finding {
    /// Returns the severity of the finding's rule.
    pub const fn severity(&self) -> Severity {
        self.rule.severity()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] {}: {}", self.severity(), self.rule, self.origin, self.message)
    }
}

/// The findings of a reader or check, without duplicates.
#[derive(Default)]
pub(crate) struct FindingList {
    list: Vec<Finding>,
}

impl FindingList {
    /// Creates a list that starts with the findings in `list`.
    pub(crate) fn new(list: Vec<Finding>) -> Self {
        Self { list }
    }

    pub(crate) fn add(&mut self, rule: Rule, origin: Origin, message: impl Into<String>) {
        if self.list.len() < MAX_FINDINGS {
            let finding = Finding { rule, origin, message: message.into() };
            if !self.list.contains(&finding) {
                self.list.push(finding);
            }
        } else if self.list.len() == MAX_FINDINGS {
            let message = String::from("only the findings before this one are listed");
            self.list.push(Finding { rule: Rule::TooManyFindings, origin, message });
        }
    }

    /// Returns `true` if the list has a finding of this rule.
    pub(crate) fn has(&self, rule: Rule) -> bool {
        self.list.iter().any(|finding| finding.rule == rule)
    }

    pub(crate) fn into_list(self) -> Vec<Finding> {
        self.list
    }
}
