//! Findings, and how checks report them.

use super::rule::Rule;

/// A finding in a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Finding {
    pub(crate) rule: Rule,
    /// The affected object.
    pub(crate) place: String,
    pub(crate) message: String,
}

/// Receives a finding: its rule, place and message.
pub(super) type Report<'a> = dyn FnMut(Rule, String, String) + 'a;
