//! The run that the page shows.

use crate::cli::ReportArgs;
use crate::run;
use crate::source::Source;
use anyhow::{Result, bail};
use doorbell_machine::Report;

/// A run for the page, or the reason why the machine wasn't run.
#[derive(Debug)]
pub(super) enum Run {
    Made(Box<Report>),
    NotMade(String),
}

impl Run {
    /// Runs the machine, unless the user disabled the run or the machine cannot be run.
    pub(super) fn of(source: &Source, args: &ReportArgs) -> Result<Self> {
        if args.no_run {
            return Ok(Self::NotMade("No run was requested.".to_owned()));
        }
        match doorbell_machine::build(&source.description, &run::build_options(&args.workload)) {
            Ok(machine) => Ok(Self::Made(Box::new(run::deliver(machine, &args.workload)?))),
            Err(refusal) if args.run => bail!("{}: nothing to deliver: {refusal}", source.name),
            Err(refusal) => Ok(Self::NotMade(format!("The machine cannot be run: {refusal}."))),
        }
    }
}
