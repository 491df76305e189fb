//! `doorbell lint`: finds mistakes in firmware descriptions. Each rule has a stable name.

mod excerpt;
mod inputs;
mod judge;
mod levels;
mod rules;
mod sarif;
mod summary;
mod text;

use crate::cli::LintArgs;
use crate::exit::Outcome;
use crate::print;
use anyhow::{Result, bail};
use gic_firmware::Severity;
use judge::{Judge, Verdict};
use levels::Levels;
use serde::Serialize;

pub(crate) use excerpt::Excerpts;

/// Checks descriptions and prints the findings.
pub(crate) fn lint(args: &LintArgs) -> Result<Outcome> {
    if args.rules {
        print::text(rules::list)?;
        return Ok(Outcome::Good);
    }
    if let Some(name) = &args.explain {
        let rule = levels::rule(name)?;
        print::text(|out| rules::explain(out, rule))?;
        return Ok(Outcome::Good);
    }
    let levels = Levels::of(&args.allow, &args.deny)?;
    let known = args.registers.read()?;
    let judge = Judge { levels, known, with_text: !args.output.json && !args.sarif };
    let verdicts = judge_all(&judge, args)?;
    report(args, &verdicts)?;
    Ok(outcome(&verdicts))
}

fn judge_all(judge: &Judge, args: &LintArgs) -> Result<Vec<Verdict>> {
    if args.sources.is_empty() {
        return Ok(vec![judge.running()?]);
    }
    let sources = inputs::expand(&args.sources)?;
    if !args.same_machine {
        return Ok(judge.all(&sources));
    }
    let [one, others @ ..] = sources.as_slice() else { bail!("no sources to compare") };
    if others.is_empty() {
        bail!("--same-machine needs two sources of one machine");
    }
    judge.same_machine(one, others)
}

fn report(args: &LintArgs, verdicts: &[Verdict]) -> Result<()> {
    for verdict in verdicts {
        if let Some(error) = &verdict.unreadable {
            print::tell(format_args!("{error:#}"));
        }
    }
    if args.sarif {
        return print::json(&sarif::Log::of(verdicts));
    }
    let rows: Vec<Row<'_>> = verdicts.iter().flat_map(Row::all_of).collect();
    if args.output.json {
        return print::json(&rows);
    }
    print::text(|out| summary::print(out, verdicts, args.summary))
}

/// Returns the outcome. Notes don't affect the exit status. An unreadable source takes precedence
/// over findings in other sources.
fn outcome(verdicts: &[Verdict]) -> Outcome {
    let mut found = verdicts.iter().flat_map(|verdict| &verdict.findings);
    if verdicts.iter().any(|verdict| verdict.unreadable.is_some()) {
        Outcome::CouldNotRun
    } else if found.any(|found| found.severity > Severity::Note) {
        Outcome::Findings
    } else {
        Outcome::Good
    }
}

/// A finding, as it appears in the JSON output.
#[derive(Debug, Serialize)]
struct Row<'v> {
    source: &'v str,
    rule: &'static str,
    severity: String,
    #[serde(rename = "where")]
    place: String,
    message: &'v str,
    help: &'static str,
}

impl<'v> Row<'v> {
    fn all_of(verdict: &'v Verdict) -> impl Iterator<Item = Self> {
        verdict.findings.iter().map(|found| Self {
            source: &verdict.source,
            rule: found.finding.rule.name(),
            severity: found.severity.to_string(),
            place: found.finding.origin.to_string(),
            message: &found.finding.message,
            help: found.finding.rule.help(),
        })
    }
}
