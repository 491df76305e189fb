//! Findings for people.

use super::counts;
use super::excerpt::Excerpts;
use super::judge::Verdict;
use super::levels::JudgedFinding;
use crate::print::Output;
use crate::table::Table;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};
use gic_firmware::Severity;
use std::io::{self, IsTerminal, Write};

/// Columns of a terminal that messages fit into.
const WIDTH: usize = 100;

/// Prints the findings, and a summary where there are several sources.
pub(super) fn print(out: &mut Output, verdicts: &[Verdict], only_summary: bool) -> io::Result<()> {
    for text in verdicts.iter().filter(|_| !only_summary).flat_map(|verdict| &verdict.text) {
        writeln!(out, "{text}\n")?;
    }
    if verdicts.len() > 1 || only_summary {
        summary(out, verdicts)?;
    }
    total(out, verdicts)
}

fn summary(out: &mut Output, verdicts: &[Verdict]) -> io::Result<()> {
    let counts = counts(verdicts);
    if counts.is_empty() {
        return Ok(());
    }
    let mut rows = Table::new(["rule", "severity", "findings", "sources"]);
    for (rule, findings, sources) in counts {
        let severity = rule.severity().to_string();
        rows.row([rule.name(), &severity, &findings.to_string(), &sources.to_string()]);
    }
    writeln!(out, "{rows}")
}

fn total(out: &mut Output, verdicts: &[Verdict]) -> io::Result<()> {
    let count = |severity| {
        let all = verdicts.iter().flat_map(|verdict| &verdict.findings);
        all.filter(|found| found.severity == severity).count()
    };
    let [errors, warnings, notes] = [Severity::Error, Severity::Warning, Severity::Note].map(count);
    let silent = verdicts.iter().filter(|verdict| verdict.findings.is_empty()).count();
    writeln!(
        out,
        "{errors} errors, {warnings} warnings, {notes} notes; {silent} of {} sources without any",
        verdicts.len()
    )
}

/// Spells one finding, with what it points at and the help.
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
