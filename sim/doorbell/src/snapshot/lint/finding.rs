//! Findings, and the type of the callback that receives them.

use super::rule::Rule;

/// Finding in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    /// Name of the affected object.
    pub(crate) place: String,
    pub(crate) message: String,
}

/// Callback that receives the rule, place and message of a finding.
pub(super) type Report<'a> = dyn FnMut(Rule, String, String) + 'a;
