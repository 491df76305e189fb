//! Text output: the findings of all sources, and their count.

use super::judge::Verdict;
use super::rule;
use crate::findings;
use crate::print::Output;
use crate::table::Table;
use crate::wording::counted;
use doorbell_inspection::lint::Row;
use std::io::{self, Write};

/// Prints the findings, followed by a summary if there are several sources.
pub(super) fn print(
    out: &mut Output,
    verdicts: &[Verdict],
    only_summary: bool,
    is_compared: bool,
) -> io::Result<()> {
    for text in verdicts.iter().filter(|_| !only_summary).flat_map(|verdict| &verdict.text) {
        writeln!(out, "{text}\n")?;
    }
    if verdicts.len() > 1 || only_summary {
        summary(out, verdicts)?;
    }
    total(out, verdicts, is_compared)
}

/// Prints, for each rule, the number of findings and the number of sources with such findings.
fn summary(out: &mut Output, verdicts: &[Verdict]) -> io::Result<()> {
    let mut rows = Table::new(["rule", "severity", "findings", "sources"]);
    let mut is_empty = true;
    for rule in rule::all() {
        let is_of = |row: &&Row| row.rule.code == rule.code;
        let here = verdicts.iter().map(|verdict| verdict.counting().filter(is_of).count());
        let counts: Vec<usize> = here.filter(|count| *count > 0).collect();
        if !counts.is_empty() {
            let (findings, sources) = (counts.iter().sum::<usize>(), counts.len());
            let severity = rule.severity.to_string();
            rows.row([rule.name, &severity, &findings.to_string(), &sources.to_string()]);
            is_empty = false;
        }
    }
    if is_empty { Ok(()) } else { writeln!(out, "{rows}") }
}

fn total(out: &mut Output, verdicts: &[Verdict], is_compared: bool) -> io::Result<()> {
    let rows = || verdicts.iter().flat_map(|verdict| &verdict.rows);
    let clean = verdicts.iter().filter(|verdict| verdict.counting().next().is_none()).count();
    write!(
        out,
        "{}; {clean} of {} without {}findings",
        findings::counts(&rows().filter(|row| row.counts())),
        counted(verdicts.len(), "source"),
        if is_compared { "new " } else { "" }
    )?;
    let suppressed = rows().filter(|row| row.suppressed.is_some()).count();
    let known = rows().filter(|row| !row.counts()).count() - suppressed;
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
