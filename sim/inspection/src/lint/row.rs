//! A finding in machine-readable form.

use crate::location::Location;
use gic_firmware::{Finding, Severity};
use serde::{Serialize, Serializer};

/// A finding, in the form of the JSON output.
#[derive(Debug, Serialize)]
pub struct Row<'v> {
    /// Name of the source.
    pub source: &'v str,
    /// Stable name of the rule.
    pub rule: &'static str,
    /// Severity of the finding.
    #[serde(serialize_with = "displayed")]
    pub severity: Severity,
    /// Node and property, or table offset and field; empty if the finding is about the whole
    /// source.
    #[serde(rename = "where")]
    pub place: String,
    /// Description of the mistake.
    pub message: &'v str,
    /// Advice how to correct it.
    pub help: &'static str,
    /// Identification that stays the same if the node moves.
    pub fingerprint: &'v str,
    /// Absent without a baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineState>,
    /// Absent unless the source is text.
    #[serde(flatten)]
    pub region: Option<Region<'v>>,
    /// Overlay that brought the finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overlay: Option<&'v str>,
    /// File that the finding is about if it has no region.
    #[serde(skip)]
    pub path: &'v str,
}

/// The text that a finding points at. Lines and columns start at 1, and the end is the position
/// after the last character.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Region<'v> {
    /// Path of the file.
    pub file: &'v str,
    /// First line.
    pub line: usize,
    /// First column.
    pub column: usize,
    /// Last line.
    pub end_line: usize,
    /// Column after the last character.
    pub end_column: usize,
}

impl<'v> Region<'v> {
    /// Creates the region of a location.
    pub fn of(location: &'v Location) -> Self {
        let Location { file, start: (line, column), end: (end_line, end_column), .. } = location;
        Self { file, line: *line, column: *column, end_line: *end_line, end_column: *end_column }
    }
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

impl<'v> Row<'v> {
    /// Creates the row of a finding, with its usual severity.
    pub fn of(source: &'v str, finding: &'v Finding, fingerprint: &'v str) -> Self {
        Self {
            source,
            rule: finding.rule.name(),
            severity: finding.severity(),
            place: finding.origin.to_string(),
            message: &finding.message,
            help: finding.rule.help(),
            fingerprint,
            baseline: None,
            region: None,
            overlay: None,
            path: source,
        }
    }

    /// Returns the file that the finding is about.
    pub fn file(&self) -> &'v str {
        self.region.map_or(self.path, |region| region.file)
    }

    /// Returns `true` unless the finding is in the baseline.
    pub fn is_new(&self) -> bool {
        self.baseline != Some(BaselineState::Unchanged)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn displayed<S: Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(severity)
}
