//! The run whose result is on the page.

use crate::cli::ReportArgs;
use crate::run;
use crate::source::Source;
use anyhow::{Result, bail};
use doorbell_machine::Report;

/// A run for the page, or the reason for which there is none.
#[derive(Debug)]
pub(super) enum Run {
    Made(Box<Report>),
    NotMade(String),
}

impl Run {
    /// Runs the machine, where that is wanted and can be done.
    pub(super) fn of(source: &Source, args: &ReportArgs) -> Result<Self> {
        if args.no_run {
            return Ok(Self::NotMade("It was not asked for.".to_owned()));
        }
        match doorbell_machine::build(&source.description, &run::build_options(&args.workload)) {
            Ok(machine) => Ok(Self::Made(Box::new(run::deliver(machine, &args.workload, None)?))),
            Err(refusal) if args.run => bail!("{}: nothing to deliver: {refusal}", source.name),
            Err(refusal) => Ok(Self::NotMade(format!("The machine cannot be run: {refusal}."))),
        }
    }
}
