//! The run that the page shows.

use crate::cli::ReportArgs;
use crate::run;
use crate::source::Source;
use anyhow::{Result, bail};
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
    NotMade(String),
}

impl Run {
    /// Runs the machine, unless the user disabled the run or the machine cannot be run.
    pub(super) fn of(source: &Source, args: &ReportArgs) -> Result<Self> {
        if args.no_run {
            return Ok(Self::NotMade("No run was requested.".to_owned()));
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
            Err(refusal) => Ok(Self::NotMade(format!("The machine cannot be run: {refusal}."))),
        }
    }
}
