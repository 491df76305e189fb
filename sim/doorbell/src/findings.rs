//! Findings of `lint`, `snapshot lint` and the explanations as text, like the messages of a
//! compiler, and what their rules are called.

use crate::exit::Outcome;
use crate::print::{Output, is_styled, wrapped};
use crate::table::Table;
use crate::wording::{counted, did_you_mean};
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use anyhow::{Context, Result};
use doorbell_inspection::lint::{Excerpts, Row, RuleText};
use gic_firmware::Severity;
use msi_types::explain::{Explanation, Obstacle};
use std::io::{self, Write};

/// Width for formatting messages, in columns.
const WIDTH: usize = 100;

/// Renders findings with the source text that they point at and their help. Findings of the same
/// rule and place form one text, at the place of the first. A source has few findings, because the
/// lists that they come from are limited.
pub(crate) fn texts<'r>(rows: impl Iterator<Item = &'r Row>, excerpts: &Excerpts) -> Vec<String> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows {
        let is_same = |group: &&mut Vec<&Row>| {
            let is_first = |first: &Row| {
                (first.rule.code, &first.origin, &first.source)
                    == (row.rule.code, &row.origin, &row.source)
            };
            group.first().is_some_and(|first| is_first(first))
        };
        match groups.iter_mut().find(is_same) {
            Some(group) => group.push(row),
            None => groups.push(vec![row]),
        }
    }
    let text = |group: &Vec<&Row>| {
        let (first, others) = group.split_first()?;
        Some(text(first, others, excerpts))
    };
    groups.iter().filter_map(text).collect()
}

/// Renders a finding, and `others` of the same rule and place.
fn text(row: &Row, others: &[&Row], excerpts: &Excerpts) -> String {
    let title = level(row.severity).primary_title(row.rule.summary).id(row.rule.name);
    let excerpt = excerpts.text(&row.origin);
    let place = place(row).replace(char::is_control, "\u{fffd}");
    let mut group = match excerpt.clone() {
        Some((text, span)) => {
            let label = AnnotationKind::Primary.span(span).label(row.message.as_str());
            let snippet = Snippet::source(text).fold(!excerpts.are_short());
            let snippet = match &row.location {
                Some(location) => snippet.line_start(location.line),
                None => snippet.line_numbering(false),
            };
            title.element(snippet.annotation(label))
        }
        None => title
            .element(Origin::path(place.as_str()))
            .element(Level::NOTE.message(row.message.as_str())),
    };
    for other in others {
        group = group.element(Level::NOTE.message(other.message.as_str()));
    }
    let overlay = row.overlay.as_deref().map(by_overlay);
    group = group.elements(overlay.map(|overlay| Level::NOTE.message(overlay)));
    let group = group.element(Level::HELP.message(help(&row.rule)));
    let renderer = if is_styled() { Renderer::styled() } else { Renderer::plain() };
    let text = renderer.term_width(WIDTH).render(&[group]);
    // With a snippet, the renderer would also state a line and a column, but they would refer to an
    // excerpt that exists only in this program.
    match text.split_once('\n').filter(|_| excerpt.is_some()) {
        Some((title, rest)) => format!("{title}\n--> {place}\n{rest}"),
        None => text,
    }
}

/// Returns the file or source, with the place in it.
fn place(row: &Row) -> String {
    let source = match &row.location {
        Some(at) => format!("{}:{}:{}", at.file, at.line, at.column),
        None => row.source.clone(),
    };
    match row.origin.to_string() {
        place if place.is_empty() => source,
        place => format!("{source}: {place}"),
    }
}

/// Returns the sentence that says which overlay brought a finding.
pub(crate) fn by_overlay(name: &str) -> String {
    format!("the description has this finding only with the overlay {name}")
}

/// Returns a rule's advice, and how to read more.
pub(crate) fn help(rule: &RuleText) -> String {
    format!("{} (`doorbell why {}`)", rule.help, rule.code)
}

/// Returns a finding and its rule's advice in two sentences.
pub(crate) fn sentences(row: &Row) -> [String; 2] {
    let Row { rule, severity, origin, message, .. } = row;
    [format!("{severity}[{}] {origin}: {message}", rule.name), format!("  help: {}", help(rule))]
}

/// Returns the lines of an explanation: first the findings, last the codes of its obstacles.
pub(crate) fn lines(explanation: &Explanation, found: &[Row]) -> Vec<String> {
    let mut lines: Vec<String> = found.iter().flat_map(sentences).collect();
    let text = explanation.to_string();
    let is_open = outcome(found.iter()) == Outcome::Good;
    let other = if is_open { "no obstacle was found" } else { "no other obstacle was found" };
    lines.extend(text.lines().map(|line| line.replace("no obstacle was found", other)));
    let codes = explanation.obstacles().map(Obstacle::code);
    lines.extend(codes.map(|code| format!("more: `doorbell why {code}`")));
    lines
}

const fn level(severity: Severity) -> Level<'static> {
    match severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    }
}

/// Returns the numbers of errors, warnings and notes.
pub(crate) fn counts<'r>(rows: &(impl Iterator<Item = &'r Row> + Clone)) -> String {
    let count = |severity| rows.clone().filter(|row| row.severity == severity).count();
    let errors = counted(count(Severity::Error), "error");
    let warnings = counted(count(Severity::Warning), "warning");
    format!("{errors}, {warnings}, {}", counted(count(Severity::Note), "note"))
}

/// Returns the outcome. Notes don't affect the exit status, and neither do findings that are
/// suppressed or in the baseline.
pub(crate) fn outcome<'r>(mut rows: impl Iterator<Item = &'r Row>) -> Outcome {
    if rows.any(|row| row.counts() && row.severity > Severity::Note) {
        Outcome::Findings
    } else {
        Outcome::Good
    }
}

/// Returns the rule with this name. `command` lists `rules`; `others` are further names that it
/// accepts.
pub(crate) fn named(
    name: &str,
    rules: &[RuleText],
    others: &[&'static str],
    command: &str,
) -> Result<RuleText> {
    let found = rules.iter().find(|rule| rule.name == name).copied();
    found.with_context(|| {
        let names = rules.iter().map(|rule| rule.name).chain(others.iter().copied());
        let meant = did_you_mean(name, names);
        format!("no rule is named {name:?}; {meant}`{command} --rules` lists them")
    })
}

/// Prints a list of rules.
pub(crate) fn list(out: &mut Output, rules: &[RuleText]) -> io::Result<()> {
    let mut rows = Table::new(["rule", "severity", "finds"]);
    for rule in rules {
        rows.row([rule.name, &rule.severity.to_string(), rule.summary]);
    }
    writeln!(out, "{rows}")
}

/// Prints a rule's rationale, with an example of the fault and the fix.
pub(crate) fn explain(out: &mut Output, rule: &RuleText) -> io::Result<()> {
    writeln!(out, "{}[{}]: {}\n", rule.severity, rule.name, rule.summary)?;
    let mut is_code = false;
    for line in rule.explanation.lines() {
        match line.strip_prefix("## ") {
            _ if line.starts_with("```") => is_code = !is_code,
            Some(heading) => writeln!(out, "{heading}:")?,
            None if is_code => writeln!(out, "    {line}")?,
            None => writeln!(out, "{line}")?,
        }
    }
    let separator = if rule.explanation.is_empty() { "" } else { "\n" };
    writeln!(out, "{separator}{}", wrapped(&format!("Help: {}", rule.help)))?;
    writeln!(out, "Code: {}", rule.code)?;
    writeln!(out, "Source: {}", source_of_rule(rule))
}

/// Returns the documents that a rule follows.
fn source_of_rule(rule: &RuleText) -> &'static str {
    match rule.code.0 {
        ..100 => "none; nothing was read",
        100..300 => "docs/lint.md, which names the binding or the table of each rule",
        _ => "Linux's arm-vgic-v3.rst and arm-vgic-its.rst; Arm IHI 0069H, chapters 5 and 12",
    }
}
