//! Text output for a single finding, including the source text that it points at.

use super::excerpt::Excerpts;
use super::levels::JudgedFinding;
use super::rule::LintRule;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use gic_firmware::Severity;
use std::io::{self, IsTerminal};

/// Width for formatting messages, in columns.
const WIDTH: usize = 100;

/// Renders a finding with the source text that it points at and its help.
pub(super) fn spell(source: &str, found: &JudgedFinding, excerpts: &Excerpts) -> String {
    let finding = &found.finding;
    let level = match found.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = level.primary_title(finding.rule.summary()).id(finding.rule.name());
    let group = match excerpts.text(&finding.origin) {
        Some((text, span)) => {
            let path = format!("{source}: {}", finding.origin.place().unwrap_or_default());
            let label = AnnotationKind::Primary.span(span).label(finding.message.as_str());
            title.element(Snippet::source(text).path(path).annotation(label))
        }
        None => title
            .element(Origin::path(format!("{source}: {}", finding.origin)))
            .element(Level::NOTE.message(finding.message.as_str())),
    };
    let group = group.element(Level::HELP.message(finding.rule.help()));
    let renderer = if io::stdout().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(WIDTH).render(&[group])
}

/// Renders the finding that a source is unreadable.
pub(super) fn unreadable(source: &str, reason: &str) -> String {
    let rule = LintRule::UnreadableSource;
    let group = Level::ERROR
        .primary_title(rule.summary())
        .id(rule.name())
        .element(Origin::path(source))
        .element(Level::NOTE.message(reason))
        .element(Level::HELP.message(rule.help()));
    let renderer = if io::stdout().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    renderer.term_width(WIDTH).render(&[group])
}
