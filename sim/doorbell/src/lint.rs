//! `doorbell lint`: finds mistakes in firmware descriptions. Each rule has a stable name.

mod baseline;
mod github;
mod inputs;
mod judge;
mod levels;
mod row;
mod rule;
mod rules;
mod sarif;
mod summary;
mod suppression;
mod text;

use crate::cli::LintArgs;
use crate::exit::Outcome;
use crate::print;
use crate::wording::counted;
use anyhow::{Result, bail};
use baseline::Baseline;
use doorbell_inspection::lint::Row;
use gic_firmware::Severity;
use inputs::FirmwareInput;
use judge::{Judge, Verdict};
use levels::Levels;
use rule::LintRule;
use suppression::Suppressions;

pub(crate) use baseline::changes;

/// Checks descriptions and prints the findings.
pub(crate) fn lint(args: &LintArgs) -> Result<Outcome> {
    if args.rules {
        print::text(rules::list)?;
        return Ok(Outcome::Good);
    }
    if let Some(name) = &args.explain {
        let rule = LintRule::named(name)?;
        print::text(|out| rules::explain(out, rule))?;
        return Ok(Outcome::Good);
    }
    let (suppressions, allowed) = Suppressions::read(&args.allow, &args.allow_file)?;
    let judge = Judge {
        levels: Levels::of(&allowed, &args.deny)?,
        known: args.registers.read()?,
        suppressions,
        baseline: args.baseline.as_deref().map(Baseline::read).transpose()?,
        compilation: args.include.compilation(),
        with_text: !args.output.json && !args.sarif && !args.github,
    };
    let verdicts = judge_all(&judge, args)?;
    report(args, &judge, &verdicts)?;
    Ok(outcome(&verdicts))
}

fn judge_all(judge: &Judge<'_>, args: &LintArgs) -> Result<Vec<Verdict>> {
    let mut sources = inputs::expand(&args.sources)?;
    let machine = args.machine.clone().map(FirmwareInput::Embedded);
    let named = machine.into_iter().chain(args.running.then_some(FirmwareInput::Running));
    sources.splice(0..0, named);
    if !args.same_machine {
        return Ok(judge.all(&sources));
    }
    match sources.as_slice() {
        [] | [_] => bail!("--same-machine needs two sources of one machine"),
        [one, others @ ..] => Ok(judge.same_machine(one, others)),
    }
}

fn report(args: &LintArgs, judge: &Judge<'_>, verdicts: &[Verdict]) -> Result<()> {
    let is_told = !judge.with_text || args.summary;
    for verdict in verdicts.iter().filter(|_| is_told) {
        if let Some(error) = &verdict.unreadable {
            print::tell(error);
        }
    }
    let complaints = complaints(args, judge, verdicts);
    complaints.iter().for_each(print::tell);
    if args.sarif {
        return print::json(&sarif::log(verdicts, &judge.suppressions, &complaints));
    }
    let rows: Vec<Row<'_>> = verdicts.iter().flat_map(Verdict::rows).collect();
    if args.output.json {
        return print::json(&rows);
    }
    if args.github {
        return print::text(|out| github::print(out, rows.iter().filter(|row| row.is_new())));
    }
    print::text(|out| summary::print(out, verdicts, args.summary))
}

/// Returns the complaints about the suppressions and the baseline.
fn complaints(args: &LintArgs, judge: &Judge<'_>, verdicts: &[Verdict]) -> Vec<String> {
    let sources: Vec<&str> = verdicts.iter().map(|verdict| verdict.source.as_str()).collect();
    let mut complaints = judge.suppressions.complaints(&sources);
    if let (Some(path), Some(baseline)) = (&args.baseline, &judge.baseline) {
        let name = path.display();
        if let Some(other) = baseline.stranger(&sources) {
            complaints.push(format!("{name} is about other sources, such as {other}"));
        }
        let gone: usize = verdicts.iter().map(|verdict| verdict.gone).sum();
        if gone > 0 {
            let findings = counted(gone, "finding");
            complaints.push(format!("{name}: {findings} of these sources no longer occur"));
        }
    }
    complaints
}

/// Returns the outcome. Notes don't affect the exit status, and neither do findings that are
/// suppressed or in the baseline. An unreadable source takes precedence over findings in other
/// sources.
fn outcome(verdicts: &[Verdict]) -> Outcome {
    let found = verdicts.iter().flat_map(|verdict| &verdict.findings);
    let mut counting = found.filter(|found| found.counts());
    if verdicts.iter().any(|verdict| verdict.unreadable.is_some()) {
        Outcome::CouldNotRun
    } else if counting.any(|found| found.severity > Severity::Note) {
        Outcome::Findings
    } else {
        Outcome::Good
    }
}
