//! `doorbell snapshot lint`: finds states that lose interrupts after a restore.

mod events;
mod interfaces;
mod lpis;
mod registers;
mod ring;
mod rule;
mod tables;

use super::cli::SnapshotLintArgs;
use super::file;
use super::machine::Machine;
use crate::exit::Outcome;
use crate::wording::counted;
use crate::{findings, print};
use anyhow::Result;
use doorbell_inspection::lint::{Excerpts, Row, RuleText};
use std::collections::BTreeMap;
use std::io::Write as _;

pub(super) use rule::{Finding, Rule};

/// Maximum number of findings that are listed for each rule.
const SHOWN: usize = 16;

/// Checks snapshots and prints the findings.
pub(super) fn lint(args: &SnapshotLintArgs) -> Result<Outcome> {
    if args.rules {
        print::text(|out| findings::list(out, &rules()))?;
        return Ok(Outcome::Good);
    }
    let named =
        |name: &String| Ok(findings::named(name, &rules(), &[], "doorbell snapshot lint")?.code);
    let allowed = args.allow.iter().map(named).collect::<Result<Vec<_>>>()?;
    let (mut rows, mut clean, mut unreadable) = (Vec::new(), 0, false);
    for path in &args.files {
        let mut found: Vec<Row> = match file::read(path) {
            Ok(machine) => check(&machine).iter().map(|one| one.row(&machine.name)).collect(),
            Err(error) => {
                unreadable = true;
                let message = format!("{error:#}");
                let found = Finding { rule: Rule::UnreadableFile, place: String::new(), message };
                vec![found.row(&path.display().to_string())]
            }
        };
        found.retain(|row| !allowed.contains(&row.rule.code));
        clean += usize::from(found.is_empty());
        rows.append(&mut found);
    }
    print::rows(args.output.json, &rows, |out| {
        let texts = findings::texts(rows.iter(), &Excerpts::default());
        texts.iter().try_for_each(|text| writeln!(out, "{text}\n"))?;
        let (counts, files) = (findings::counts(&rows.iter()), counted(args.files.len(), "file"));
        writeln!(out, "{counts}; {clean} of {files} without findings")
    })?;
    Ok(if unreadable { Outcome::CouldNotRun } else { findings::outcome(rows.iter()) })
}

/// Returns the findings in the order of their rules. If a rule has more than `SHOWN` findings,
/// the last one that is listed states the number of the others.
pub(super) fn check(machine: &Machine) -> Vec<Finding> {
    let mut found = BTreeMap::<Rule, (Vec<Finding>, usize)>::new();
    let mut report = |rule: Rule, place: String, message: String| {
        let (findings, more) = found.entry(rule).or_default();
        if findings.len() < SHOWN {
            findings.push(Finding { rule, place, message });
        } else {
            *more += 1;
        }
    };
    registers::check(machine, &mut report);
    tables::check(machine, &mut report);
    let changed = ring::check(machine, &mut report);
    lpis::check(machine, &changed, &mut report);
    events::check(machine, &mut report);
    interfaces::check(machine, &mut report);
    found.into_values().flat_map(shortened).collect()
}

fn shortened((mut findings, more): (Vec<Finding>, usize)) -> Vec<Finding> {
    if let Some(last) = findings.last_mut().filter(|_| more > 0) {
        let more = counted(more, "more finding");
        last.message = format!("{} ({more} of this rule)", last.message);
    }
    findings
}

/// Returns the text of all rules.
pub(crate) fn rules() -> Vec<RuleText> {
    Rule::ALL.iter().map(|rule| rule.text()).collect()
}
