//! `doorbell lint`: finds mistakes in firmware descriptions. Each rule has a stable name.

mod baseline;
mod github;
mod inputs;
mod judge;
mod rule;
mod sarif;
mod summary;
mod suppression;

use crate::cli::LintArgs;
use crate::exit::Outcome;
use crate::wording::counted;
use crate::{findings, print};
use anyhow::{Result, bail};
use baseline::Baseline;
use doorbell_inspection::lint::Row;
use inputs::FirmwareInput;
use judge::{Judge, Verdict};
use rule::Levels;
use suppression::Suppressions;

pub(crate) use baseline::changes;
pub(crate) use rule::all as rules;

/// Checks descriptions and prints the findings.
pub(crate) fn lint(args: &LintArgs) -> Result<Outcome> {
    if args.rules {
        print::text(|out| findings::list(out, &rules()))?;
        return Ok(Outcome::Good);
    }
    if let Some(name) = &args.explain {
        let rule = rule::named(name)?;
        print::text(|out| findings::explain(out, &rule))?;
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
    // An unreadable source takes precedence over findings in other sources.
    if verdicts.iter().any(|verdict| verdict.is_unreadable) {
        return Ok(Outcome::CouldNotRun);
    }
    Ok(findings::outcome(verdicts.iter().flat_map(|verdict| &verdict.rows)))
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
    if !judge.with_text || args.summary {
        let unreadable = verdicts.iter().filter(|verdict| verdict.is_unreadable);
        unreadable.flat_map(|verdict| &verdict.rows).for_each(|row| print::tell(&row.message));
    }
    let complaints = complaints(args, judge, verdicts);
    complaints.iter().for_each(print::tell);
    let rows = verdicts.iter().flat_map(|verdict| &verdict.rows);
    if args.sarif {
        return print::json(&sarif::log(rows, &judge.suppressions, &complaints));
    }
    if args.output.json {
        let rows = rows.filter(|row| row.suppressed.is_none());
        return print::json(&rows.collect::<Vec<&Row>>());
    }
    if args.github {
        return print::text(|out| github::print(out, rows.filter(|row| row.counts())));
    }
    print::text(|out| summary::print(out, verdicts, args.summary, judge.baseline.is_some()))
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
