//! The run that the page shows.

use super::delivery::Delivery;
use crate::cli::ReportArgs;
use crate::run;
use anyhow::{Result, bail};
use askama::Template;
use doorbell_inspection::Source;
use doorbell_inspection::report::RunPart;
use doorbell_machine::{BuildOptions, Report};

/// Maximum number of devices in the run of a page, which bounds its time and memory.
const DEVICES: usize = 256;
/// Maximum number of devices that run concurrently. Each has a thread, and threads that wait for
/// each other cost far more time than a simulation.
const CONCURRENT: usize = 32;

/// A run for the page, or the reason why the machine wasn't run.
#[derive(Debug)]
pub(super) enum Run {
    /// The report, and whether the run was a simulation.
    Made(Box<Report>, bool),
    NotMade(RunPart),
}

impl Run {
    /// Runs the machine, unless the user disabled the run or the machine cannot be run.
    pub(super) fn of(source: &Source, args: &ReportArgs) -> Result<Self> {
        if args.no_run {
            return Ok(Self::NotMade(RunPart::not_requested()));
        }
        let options = BuildOptions { devices: Some(DEVICES), ..run::build_options(&args.workload) };
        match doorbell_machine::build(&source.description, &options) {
            Ok(machine) => {
                let simulates = args.workload.simulate || machine.devices().len() > CONCURRENT;
                let report = if simulates {
                    run::simulated(machine, &args.workload)?
                } else {
                    run::deliver(machine, &args.workload)?
                };
                Ok(Self::Made(Box::new(report), simulates))
            }
            Err(refusal) if args.run => bail!("{}: nothing to deliver: {refusal}", source.name),
            Err(refusal) => {
                let reason = format!("The machine cannot be run: {refusal}.");
                Ok(Self::NotMade(RunPart::NotMade(reason)))
            }
        }
    }

    /// Returns the part of the page about the run, whose workload had this seed.
    pub(super) fn part(&self, seed: u64) -> askama::Result<RunPart> {
        let (report, simulates) = match self {
            Self::NotMade(part) => return Ok(part.clone()),
            Self::Made(report, simulates) => (report, *simulates),
        };
        let section =
            DeliverySection { delivery: Delivery::of(report), messages_by: order(seed, simulates) };
        let (verdict, is_clean) = (section.delivery.verdict.clone(), section.delivery.is_clean);
        Ok(RunPart::Made { verdict, is_clean, html: section.render()? })
    }
}

/// The section about a run. The template escapes everything.
#[derive(Template)]
#[template(path = "run.html")]
struct DeliverySection<'r> {
    delivery: Delivery<'r>,
    messages_by: String,
}

/// Describes how a run's messages were scheduled.
fn order(seed: u64, simulates: bool) -> String {
    if simulates {
        format!("simulated on one thread with seed {seed}")
    } else {
        format!("on threads, with seed {seed}")
    }
}
