//! The findings about a source in machine-readable form.

use super::judge::Verdict;
use super::levels::JudgedFinding;
use super::rule::LintRule;
use doorbell_inspection::lint::{BaselineState, Region, Row};

impl Verdict {
    /// Returns the findings of a source that are not suppressed, including the finding that reports
    /// an unreadable source.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let found = self.findings.iter().filter(|found| found.suppressed.is_none());
        self.unreadable_row().into_iter().chain(found.map(|found| self.row(found)))
    }

    /// Returns the finding that reports an unreadable source, if the source is unreadable.
    pub(super) fn unreadable_row(&self) -> Option<Row<'_>> {
        let message = self.unreadable.as_deref()?;
        let rule = LintRule::UnreadableSource;
        Some(Row {
            source: &self.source,
            rule: rule.name(),
            severity: rule.severity(),
            place: String::new(),
            message,
            help: rule.help(),
            fingerprint: "unreadable-source:1",
            baseline: self.has_baseline.then_some(BaselineState::New),
            region: None,
            overlay: None,
            path: &self.path,
        })
    }

    /// Returns the row of a finding.
    pub(super) fn row<'v>(&'v self, found: &'v JudgedFinding) -> Row<'v> {
        let state = if found.is_known { BaselineState::Unchanged } else { BaselineState::New };
        Row {
            severity: found.severity,
            baseline: self.has_baseline.then_some(state),
            region: found.location.as_ref().map(Region::of),
            overlay: found.overlay.as_deref(),
            path: found.overlay.as_deref().unwrap_or(&self.path),
            ..Row::of(&self.source, &found.finding, &found.fingerprint)
        }
    }
}
