//! Text output for the findings of one place, including the source text that they point at.

use super::levels::JudgedFinding;
use super::rule::LintRule;
use crate::print::{self, level, render};
use annotate_snippets::{AnnotationKind, Level, Snippet};
use doorbell_inspection::Location;
use doorbell_inspection::lint::Excerpts;

/// Groups findings of the same rule and place, in the order of their first occurrence. A
/// description has few findings, because the lists that they come from are limited.
pub(super) fn grouped<'f>(
    findings: impl Iterator<Item = &'f JudgedFinding>,
) -> Vec<Vec<&'f JudgedFinding>> {
    let mut groups: Vec<Vec<&JudgedFinding>> = Vec::new();
    for found in findings {
        let is_same = |group: &&mut Vec<&JudgedFinding>| {
            let first = group.first().map(|first| (first.finding.rule, &first.finding.origin));
            first == Some((found.finding.rule, &found.finding.origin))
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(found),
            None => groups.push(vec![found]),
        }
    }
    groups
}

/// Renders a finding, and `others` of the same rule and place, with the source text that they point
/// at and their help.
pub(super) fn spell(
    source: &str,
    found: &JudgedFinding,
    others: &[&JudgedFinding],
    excerpts: &Excerpts,
) -> String {
    let finding = &found.finding;
    let title = level(found.severity).primary_title(finding.rule.summary()).id(finding.rule.name());
    let line = found.location.as_ref().map(|location| location.start.0);
    let mut group = match excerpts.text(&finding.origin) {
        Some((text, span)) => {
            let label = AnnotationKind::Primary.span(span).label(finding.message.as_str());
            let snippet = Snippet::source(text).fold(!excerpts.are_short());
            let snippet = match line {
                Some(line) => snippet.line_start(line),
                None => snippet.line_numbering(false),
            };
            title.element(snippet.annotation(label))
        }
        None => title.element(Level::NOTE.message(finding.message.as_str())),
    };
    for other in others {
        group = group.element(Level::NOTE.message(other.finding.message.as_str()));
    }
    if let Some(overlay) = &found.overlay {
        group = group.element(Level::NOTE.message(by_overlay(overlay)));
    }
    let group = group.element(Level::HELP.message(finding.rule.help()));
    let place = match &found.location {
        Some(Location { file, start: (line, column), .. }) => format!("{file}:{line}:{column}"),
        None => String::from(source),
    };
    with_place(&render(group), &format!("{place}: {}", finding.origin))
}

/// Returns the sentence that says which overlay brought a finding.
pub(super) fn by_overlay(name: &str) -> String {
    format!("the description has this finding only with the overlay {name}")
}

/// Adds the line that states the place, after the title. The renderer would also state a line and a
/// column, but they would refer to an excerpt that exists only in this program.
fn with_place(text: &str, place: &str) -> String {
    let place = place.replace(char::is_control, "\u{fffd}");
    let (title, rest) = text.split_once('\n').unwrap_or((text, ""));
    format!("{title}\n--> {place}\n{rest}")
}

/// Renders the finding that reports an unreadable source.
pub(super) fn unreadable(source: &str, reason: &str) -> String {
    let rule = LintRule::UnreadableSource;
    let finding = print::FindingText {
        severity: rule.severity(),
        summary: rule.summary(),
        rule: rule.name(),
        place: source,
        message: reason,
        help: rule.help(),
    };
    finding.text()
}
