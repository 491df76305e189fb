//! Findings: defects of the input that don't prevent reading it.

use crate::origin::Origin;
use alloc::string::String;
use core::fmt;

pub use crate::rule::{Rule, Severity};

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
