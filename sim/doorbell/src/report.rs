//! `doorbell report`: writes one HTML page for readers who don't have this tool.

mod delivery;
mod heat_map;
mod latency_plot;
mod run;

use crate::cli::ReportArgs;
use crate::exit::Outcome;
use crate::print;
use anyhow::{Context, Result};
use doorbell_inspection::inspect::Inspection;
use doorbell_inspection::report::{Page, judge};
use gic_firmware::Severity;
use run::Run;

/// Writes the page.
pub(crate) fn report(args: &ReportArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    let known = args.registers.read()?;
    let run = Run::of(&source, args)?;
    let findings = judge(&source.description, &known);
    let inspection = Inspection::of(&source, &known);
    let part = run.part(args.workload.seed).context("cannot write the page")?;
    let page = Page::of(&source, inspection, &findings, &part);
    let page = page.html().context("cannot write the page")?;
    print::to_file(args.output.as_deref(), &page)?;
    let is_sound = findings.iter().all(|finding| finding.severity() == Severity::Note);
    let is_clean = match &run {
        Run::Made(report, _) => report.totals.is_clean(),
        Run::NotMade(_) => true,
    };
    Ok(if is_sound && is_clean { Outcome::Good } else { Outcome::Findings })
}
