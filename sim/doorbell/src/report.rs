//! `doorbell report`: one HTML page for somebody without this tool.

mod anchors;
mod delivery;
mod findings;
mod heat_map;
mod page;
mod routes;
mod tables;

use crate::cli::ReportArgs;
use crate::exit::Outcome;
use crate::inspect::Inspection;
use crate::print;
use crate::run;
use crate::source::Source;
use anyhow::{Context, Result, bail};
use doorbell_machine::Report;
use findings::judge;
use gic_firmware::Severity;
use page::Page;
use std::fs;

/// A run for the page, or the reason for which there is none.
#[derive(Debug)]
enum Run {
    Made(Box<Report>),
    NotMade(String),
}

/// Writes the page.
pub(crate) fn report(args: &ReportArgs) -> Result<Outcome> {
    let source = args.source.as_deref().map_or_else(Source::running, Source::at)?;
    let known = args.registers.read()?;
    let run = run(&source, args)?;
    let findings = judge(&source.description, &known);
    let inspection = Inspection::of(&source, &known);
    let page = Page::of(&source, inspection, &findings, &run, args);
    let page = page.html().context("cannot write the page")?;
    match &args.output {
        None => print::text(|out| std::io::Write::write_all(out, page.as_bytes()))?,
        Some(path) => {
            fs::write(path, page).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    let is_sound = findings.iter().all(|finding| finding.severity() == Severity::Note);
    let is_clean = match &run {
        Run::Made(report) => report.totals.is_clean(),
        Run::NotMade(_) => true,
    };
    Ok(if is_sound && is_clean { Outcome::Good } else { Outcome::Findings })
}

/// Runs the machine, where that is wanted and can be done.
fn run(source: &Source, args: &ReportArgs) -> Result<Run> {
    if args.no_run {
        return Ok(Run::NotMade("It was not asked for.".to_owned()));
    }
    match doorbell_machine::build(&source.description, &run::build_options(&args.workload)) {
        Ok(machine) => Ok(Run::Made(Box::new(run::deliver(machine, &args.workload, None)?))),
        Err(refusal) if args.run => bail!("{}: nothing to deliver: {refusal}", source.name),
        Err(refusal) => Ok(Run::NotMade(format!("The machine cannot be run: {refusal}."))),
    }
}
