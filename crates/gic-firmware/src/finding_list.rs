//! Collects findings up to a limit, so that hostile input can't exhaust memory.

use crate::finding::{Finding, Rule};
use crate::origin::Origin;
use alloc::string::String;
use alloc::vec::Vec;

/// Maximum number of distinct findings. After this many, the list ends with one more finding, which
/// states that the list is incomplete.
const MAX_FINDINGS: usize = 256;

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
