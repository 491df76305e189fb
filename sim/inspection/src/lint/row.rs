//! A finding in machine-readable form.

use crate::location::Location;
use gic_firmware::msi_types::explain::Code;
use gic_firmware::{Origin, Rule, Severity};
use serde::{Serialize, Serializer};
use std::fmt::Display;

/// A finding, in the form of the JSON output.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the source.
    pub source: String,
    /// The broken rule.
    #[serde(flatten)]
    pub rule: RuleText,
    /// Severity of the finding, which options may raise above that of its rule.
    #[serde(serialize_with = "displayed")]
    pub severity: Severity,
    /// Node and property, or table offset and field; empty if the finding is about the whole
    /// source.
    #[serde(rename = "where", serialize_with = "displayed")]
    pub origin: Origin,
    /// Description of the mistake.
    pub message: String,
    /// The rule's advice under the name that readers of saved states' findings know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
    /// Identification that stays the same if the node moves; absent for saved states.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Absent without a baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineState>,
    /// The text that the finding points at; absent unless the source is text.
    #[serde(flatten)]
    pub location: Option<Location>,
    /// Overlay that brought the finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<String>,
    /// File that the finding is about if it has no location.
    #[serde(skip)]
    pub path: String,
    /// Index of the suppression that accepts the finding.
    #[serde(skip)]
    pub suppressed: Option<usize>,
}

/// Names and texts of a rule.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RuleText {
    /// Stable name.
    #[serde(rename = "rule")]
    pub name: &'static str,
    /// Stable code.
    #[serde(serialize_with = "displayed")]
    pub code: Code,
    /// Advice how to correct the mistake.
    pub help: &'static str,
    /// Severity of a violation.
    #[serde(skip)]
    pub severity: Severity,
    /// One-line summary of the mistake.
    #[serde(skip)]
    pub summary: &'static str,
    /// Rationale, with an example of the fault and of its fix, in Markdown; may be empty.
    #[serde(skip)]
    pub explanation: &'static str,
}

/// State of a finding compared with a baseline, in SARIF's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BaselineState {
    /// The baseline does not have the finding.
    New,
    /// The baseline has the finding.
    Unchanged,
}

impl From<Rule> for RuleText {
    fn from(rule: Rule) -> Self {
        Self {
            name: rule.name(),
            code: rule.code(),
            help: rule.help(),
            severity: rule.severity(),
            summary: rule.summary(),
            explanation: rule.explanation(),
        }
    }
}

impl Row {
    /// Creates the row of a finding with its rule's severity.
    pub fn new(source: &str, rule: RuleText, origin: Origin, message: String) -> Self {
        Self {
            source: source.to_owned(),
            rule,
            severity: rule.severity,
            origin,
            message,
            fix: None,
            fingerprint: None,
            baseline: None,
            location: None,
            overlay: None,
            path: source.to_owned(),
            suppressed: None,
        }
    }

    /// Returns the file that the finding is about.
    pub fn file(&self) -> &str {
        self.location.as_ref().map_or(&self.path, |location| &location.file)
    }

    /// Returns `true` if the finding is neither suppressed nor in the baseline.
    pub fn counts(&self) -> bool {
        self.suppressed.is_none() && self.baseline != Some(BaselineState::Unchanged)
    }
}

fn displayed<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
