//! Text output: the findings of all sources, and their count.

use super::judge::Verdict;
use super::levels::JudgedFinding;
use super::rule::LintRule;
use crate::print::Output;
use crate::table::Table;
use crate::wording::counted;
use doorbell_inspection::lint::Row;
use gic_firmware::Severity;
use std::io::{self, Write};

/// Prints the findings, followed by a summary if there are several sources.
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
    let rows: Vec<_> = verdicts.iter().flat_map(counting).collect();
    let count = |severity| rows.iter().filter(|row| row.severity == severity).count();
    let clean = verdicts.iter().filter(|verdict| verdict.is_clean()).count();
    let is_compared = verdicts.iter().any(|verdict| verdict.has_baseline);
    write!(
        out,
        "{}, {}, {}; {clean} of {} without {}findings",
        counted(count(Severity::Error), "error"),
        counted(count(Severity::Warning), "warning"),
        counted(count(Severity::Note), "note"),
        counted(verdicts.len(), "source"),
        if is_compared { "new " } else { "" }
    )?;
    let of = |is_it: fn(&JudgedFinding) -> bool| {
        let all = verdicts.iter().flat_map(|verdict| &verdict.findings);
        all.filter(|found| is_it(found)).count()
    };
    let suppressed = of(|found| found.suppressed.is_some());
    let known = of(|found| found.is_known && found.suppressed.is_none());
    let not_counted: Vec<String> = [(known, "in the baseline"), (suppressed, "suppressed")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    if !not_counted.is_empty() {
        write!(out, "; not counted: {}", not_counted.join(", "))?;
    }
    writeln!(out)
}

/// Returns a source's findings that are neither suppressed nor in the baseline.
fn counting(verdict: &Verdict) -> impl Iterator<Item = Row<'_>> {
    verdict.rows().filter(Row::is_new)
}

/// Returns, for each rule, the number of findings and the number of sources with such findings.
fn counts(verdicts: &[Verdict]) -> Vec<(LintRule, usize, usize)> {
    let rows: Vec<Vec<Row<'_>>> =
        verdicts.iter().map(|verdict| counting(verdict).collect()).collect();
    let of = |rule: LintRule| {
        let here = |rows: &Vec<Row<'_>>| rows.iter().filter(|row| row.rule == rule.name()).count();
        let each: Vec<usize> = rows.iter().map(here).filter(|count| *count > 0).collect();
        (rule, each.iter().sum(), each.len())
    };
    LintRule::all().map(of).filter(|(_, findings, _)| *findings > 0).collect()
}
