//! Findings, and the type of the callback that receives them.

use super::rule::Rule;
use doorbell_inspection::lint::{Row, place};

/// Finding in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    /// Name of the affected object.
    pub(crate) place: String,
    pub(crate) message: String,
}

impl Finding {
    /// Returns the row of the finding in the output.
    pub(crate) fn row(&self, source: &str) -> Row {
        let (rule, origin) = (self.rule.text(), place::origin(&self.place));
        Row { fix: Some(rule.help), ..Row::new(source, rule, origin, self.message.clone()) }
    }
}

/// Callback that receives the rule, place and message of a finding.
pub(super) type Report<'a> = dyn FnMut(Rule, String, String) + 'a;
