//! `doorbell snapshot lint`: finds states that lose interrupts after a restore.

mod events;
mod finding;
mod interfaces;
mod lpis;
mod registers;
mod ring;
mod rule;
mod tables;
mod text;

use super::cli::SnapshotLintArgs;
use super::file;
use super::machine::Machine;
use crate::exit::Outcome;
use crate::print;
use crate::table::Table;
use crate::wording::{counted, did_you_mean};
use anyhow::{Context, Result};
use gic_firmware::Severity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::Write as _;

pub(super) use finding::Finding;
pub(super) use rule::Rule;

/// Maximum number of findings that are listed for each rule.
const SHOWN: usize = 16;

/// Checks snapshots and prints the findings.
pub(super) fn lint(args: &SnapshotLintArgs) -> Result<Outcome> {
    if args.rules {
        print::text(|out| writeln!(out, "{}", rules()))?;
        return Ok(Outcome::Good);
    }
    let named = |name: &String| {
        Rule::named(name).with_context(|| {
            let meant = did_you_mean(name, Rule::ALL.iter().map(|rule| rule.name()));
            format!("no rule is named {name:?}; {meant}`doorbell snapshot lint --rules` lists them")
        })
    };
    let allowed = args.allow.iter().map(named).collect::<Result<Vec<_>>>()?;
    let (mut verdicts, mut unreadable) = (Vec::new(), false);
    for path in &args.files {
        match file::read(path) {
            Ok(machine) => {
                let mut findings = check(&machine);
                findings.retain(|finding| !allowed.contains(&finding.rule));
                verdicts.push((machine.name, findings));
            }
            Err(error) => {
                let (rule, place) = (Rule::UnreadableFile, String::new());
                let found = Finding { rule, place, message: format!("{error:#}") };
                verdicts.push((path.display().to_string(), vec![found]));
                unreadable = true;
            }
        }
    }
    let rows = verdicts.iter().flat_map(|(source, found)| FindingRow::all_of(source, found));
    print::rows(args.json, &rows.collect::<Vec<_>>(), |out| text::print(out, &verdicts))?;
    let mut found = verdicts.iter().flat_map(|(_, findings)| findings);
    Ok(if unreadable {
        Outcome::CouldNotRun
    } else if found.any(|finding| finding.rule.severity() > Severity::Note) {
        Outcome::Findings
    } else {
        Outcome::Good
    })
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

fn rules() -> Table {
    let mut rows = Table::new(["rule", "severity", "finds"]);
    for rule in Rule::ALL {
        rows.row([rule.name(), &rule.severity().to_string(), rule.summary()]);
    }
    rows
}

/// Finding in the JSON output.
#[derive(Debug, Serialize)]
struct FindingRow<'f> {
    source: &'f str,
    rule: &'static str,
    severity: String,
    #[serde(rename = "where")]
    place: &'f str,
    message: &'f str,
    fix: &'static str,
}

impl<'f> FindingRow<'f> {
    fn all_of(source: &'f str, findings: &'f [Finding]) -> impl Iterator<Item = Self> {
        findings.iter().map(move |finding| Self {
            source,
            rule: finding.rule.name(),
            severity: finding.rule.severity().to_string(),
            place: &finding.place,
            message: &finding.message,
            fix: finding.rule.fix(),
        })
    }
}
