//! `doorbell report`: writes one HTML page for readers who don't have this tool.

use crate::cli::ReportArgs;
use crate::exit::Outcome;
use crate::print;
use crate::run;
use anyhow::{Context, Result, bail};
use askama::Template;
use doorbell_inspection::Source;
use doorbell_inspection::inspect::Inspection;
use doorbell_inspection::report::{Page, RunPart, judge};
use doorbell_machine::{BuildOptions, DeviceReport, Report, Totals};
use gic_firmware::Severity;

/// Maximum number of devices in the run of a page, which bounds its time and memory.
const DEVICES: usize = 256;
/// Maximum number of devices that run concurrently. Each has a thread, and threads that wait for
/// each other cost far more time than a simulation.
const CONCURRENT: usize = 32;

/// Writes the page.
pub(crate) fn report(args: &ReportArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    let known = args.registers.read()?;
    let run = run_part(&source, args)?;
    let findings = judge(&source.description, &known);
    let inspection = Inspection::of(&source, &known);
    let page = Page::of(&source, inspection, &findings, &run);
    let page = page.html().context("cannot write the page")?;
    print::to_file(args.output.as_deref(), &page)?;
    let is_sound = findings.iter().all(|finding| finding.severity() == Severity::Note);
    let is_clean = !matches!(run, RunPart::Made { is_clean: false, .. });
    Ok(if is_sound && is_clean { Outcome::Good } else { Outcome::Findings })
}

/// Runs the machine, unless the user disabled the run or the machine cannot be run.
fn run_part(source: &Source, args: &ReportArgs) -> Result<RunPart> {
    if args.no_run {
        return Ok(RunPart::not_requested());
    }
    let options = BuildOptions { devices: Some(DEVICES), ..run::build_options(&args.workload) };
    let machine = match doorbell_machine::build(&source.description, &options) {
        Ok(machine) => machine,
        Err(refusal) if args.run => bail!("{}: nothing to deliver: {refusal}", source.name),
        Err(refusal) => {
            return Ok(RunPart::NotMade(format!("The machine cannot be run: {refusal}.")));
        }
    };
    let simulates = args.workload.simulate || machine.devices().len() > CONCURRENT;
    let deliver = if simulates { run::simulated } else { run::deliver };
    let report = deliver(machine, &args.workload)?;
    let verdict = run::run_verdict(&report);
    let seed = args.workload.seed;
    let order = if simulates {
        format!("simulated on one thread with seed {seed}")
    } else {
        format!("on threads, with seed {seed}")
    };
    let section = RunSection { report: &report, verdict: &verdict, order };
    let html = section.render().context("cannot write the page")?;
    Ok(RunPart::Made { verdict, is_clean: report.totals.is_clean(), html })
}

/// The section about a run. The template escapes everything.
#[derive(Template)]
#[template(path = "run.html")]
struct RunSection<'r> {
    report: &'r Report,
    verdict: &'r str,
    /// How the messages were scheduled.
    order: String,
}

impl RunSection<'_> {
    /// Returns the numbers of messages and of disturbances.
    fn counts(&self) -> Vec<(u64, &'static str)> {
        let totals = &self.report.totals;
        let Totals { vectors, sent, delivered, coalesced, redelivered, moves, .. } = *totals;
        let messages = [
            (vectors, "vectors"),
            (sent, "messages sent"),
            (delivered, "delivered"),
            (coalesced, "coalesced"),
            (redelivered, "redelivered"),
            (moves, "affinity moves"),
        ];
        let disturbances = run::disturbances(totals).into_iter().filter(|(number, _)| *number > 0);
        messages.into_iter().chain(disturbances).collect()
    }

    /// Returns the verdict on a device.
    fn outcome(device: &DeviceReport) -> String {
        match &device.refused {
            Some(reason) => format!("refused: {reason}"),
            None => run::device_outcome(device),
        }
    }

    /// Returns the percentiles of the times from the device's writes to its handlers.
    fn latency(device: &DeviceReport) -> String {
        let times = device.latency.as_ref().map(|all| [all.p50, all.p99].map(print::duration));
        times.map_or_else(String::new, |[p50, p99]| format!("p50 {p50}, p99 {p99}"))
    }
}
