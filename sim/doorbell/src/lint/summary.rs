//! Text output: the findings of all sources, and their count.

use super::judge::Verdict;
use crate::print::Output;
use crate::table::Table;
use gic_firmware::{Rule, Severity};
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

/// Returns, for each rule, the number of findings and the number of sources with such findings.
fn counts(verdicts: &[Verdict]) -> Vec<(Rule, usize, usize)> {
    let of = |rule: &Rule| {
        let here = |verdict: &Verdict| {
            verdict.findings.iter().filter(|found| found.finding.rule == *rule).count()
        };
        let each: Vec<usize> = verdicts.iter().map(here).filter(|count| *count > 0).collect();
        (*rule, each.iter().sum(), each.len())
    };
    Rule::ALL.iter().map(of).filter(|(_, findings, _)| *findings > 0).collect()
}
