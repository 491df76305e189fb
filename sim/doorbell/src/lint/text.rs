//! Text output for the findings of one place, including the source text that they point at.

use super::excerpt::Excerpts;
use super::levels::JudgedFinding;
use super::rule::LintRule;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use gic_firmware::Severity;
use std::io::{self, IsTerminal};

/// Width for formatting messages, in columns.
const WIDTH: usize = 100;
/// What the renderer prints instead of a line number.
const ANONYMOUS: &str = "LL";
/// What the renderer prints above an excerpt without a file.
const NO_FILE: &str = ":::";

/// Returns the findings in order, those of the same rule and place together.
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
    let level = match found.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let title = level.primary_title(finding.rule.summary()).id(finding.rule.name());
    let place = Origin::path(format!("{source}: {}", finding.origin));
    let mut group = title.element(place);
    group = match excerpts.text(&finding.origin) {
        Some((text, span)) => {
            let label = AnnotationKind::Primary.span(span).label(finding.message.as_str());
            group.element(Snippet::source(text).annotation(label))
        }
        None => group.element(Level::NOTE.message(finding.message.as_str())),
    };
    for other in others {
        group = group.element(Level::NOTE.message(other.finding.message.as_str()));
    }
    let group = group.element(Level::HELP.message(finding.rule.help()));
    let renderer = if io::stdout().is_terminal() { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(WIDTH).anonymized_snippet_line_numbers(true);
    without_line_numbers(&renderer.render(&[group]))
}

/// Removes the line numbers of excerpts, which are lines of no file that the user has, and the line
/// that announces an excerpt without a file.
fn without_line_numbers(rendered: &str) -> String {
    let blank = " ".repeat(ANONYMOUS.len());
    let is_shown = |line: &&str| {
        let shown = line.chars().filter(|one| !is_style(*one) && *one != ' ');
        !shown.eq(NO_FILE.chars())
    };
    let lines = rendered.lines().filter(is_shown).map(|line| {
        let before = line.find(ANONYMOUS).and_then(|place| line.get(..place));
        let is_number = before.is_some_and(|before| before.chars().all(is_style));
        if is_number { line.replacen(ANONYMOUS, &blank, 1) } else { line.to_owned() }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns `true` for the characters of the escape sequences that set a style.
fn is_style(one: char) -> bool {
    one.is_ascii_digit() || matches!(one, '\u{1b}' | '[' | ';' | 'm')
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
