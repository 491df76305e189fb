//! A finding in machine-readable form.

use super::judge::Verdict;
use super::levels::JudgedFinding;
use super::rule::LintRule;
use crate::dts::Location;
use gic_firmware::Severity;
use serde::{Serialize, Serializer};

/// A finding, in the form of the JSON output.
#[derive(Debug, Serialize)]
pub(super) struct Row<'v> {
    pub(super) source: &'v str,
    pub(super) rule: &'static str,
    #[serde(serialize_with = "displayed")]
    pub(super) severity: Severity,
    /// Node and property, or table offset and field; empty if the finding is about the whole
    /// source.
    #[serde(rename = "where")]
    pub(super) place: String,
    pub(super) message: &'v str,
    pub(super) help: &'static str,
    pub(super) fingerprint: &'v str,
    /// Absent without a baseline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) baseline: Option<BaselineState>,
    /// Absent unless the source is text.
    #[serde(flatten)]
    pub(super) region: Option<Region<'v>>,
    /// Overlay that brought the finding.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) overlay: Option<&'v str>,
    /// File that the finding is about if it has no region.
    #[serde(skip)]
    pub(super) path: &'v str,
}

/// The text that a finding points at. Lines and columns start at 1, and the end is the position
/// after the last character.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Region<'v> {
    pub(super) file: &'v str,
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) end_line: usize,
    pub(super) end_column: usize,
}

impl<'v> Region<'v> {
    fn of(location: &'v Location) -> Self {
        let Location { file, start: (line, column), end: (end_line, end_column), .. } = location;
        Self { file, line: *line, column: *column, end_line: *end_line, end_column: *end_column }
    }
}

/// State of a finding compared with a baseline, in SARIF's terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum BaselineState {
    New,
    Unchanged,
}

impl<'v> Row<'v> {
    /// Returns the findings of a source that are not suppressed, including the finding that reports
    /// an unreadable source.
    pub(super) fn all_of(verdict: &'v Verdict) -> impl Iterator<Item = Self> {
        let found = verdict.findings.iter().filter(|found| found.suppressed.is_none());
        Self::unreadable(verdict).into_iter().chain(found.map(|found| Self::of(verdict, found)))
    }

    /// Returns the finding that reports an unreadable source, if the source is unreadable.
    pub(super) fn unreadable(verdict: &'v Verdict) -> Option<Self> {
        let message = verdict.unreadable.as_deref()?;
        let rule = LintRule::UnreadableSource;
        Some(Self {
            source: &verdict.source,
            rule: rule.name(),
            severity: rule.severity(),
            place: String::new(),
            message,
            help: rule.help(),
            fingerprint: "unreadable-source:1",
            baseline: verdict.has_baseline.then_some(BaselineState::New),
            region: None,
            overlay: None,
            path: &verdict.path,
        })
    }

    /// Creates the row of a finding.
    pub(super) fn of(verdict: &'v Verdict, found: &'v JudgedFinding) -> Self {
        let state = if found.is_known { BaselineState::Unchanged } else { BaselineState::New };
        Self {
            source: &verdict.source,
            rule: found.finding.rule.name(),
            severity: found.severity,
            place: found.finding.origin.to_string(),
            message: &found.finding.message,
            help: found.finding.rule.help(),
            fingerprint: &found.fingerprint,
            baseline: verdict.has_baseline.then_some(state),
            region: found.location.as_ref().map(Region::of),
            overlay: found.overlay.as_deref(),
            path: found.overlay.as_deref().unwrap_or(&verdict.path),
        }
    }

    /// Returns the file that the finding is about.
    pub(super) fn file(&self) -> &'v str {
        self.region.map_or(self.path, |region| region.file)
    }

    /// Returns `true` unless the finding is in the baseline.
    pub(super) fn is_new(&self) -> bool {
        self.baseline != Some(BaselineState::Unchanged)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn displayed<S: Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(severity)
}
