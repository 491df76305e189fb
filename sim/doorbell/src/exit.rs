//! Exit status of the command.

use std::process::ExitCode;

/// Result of the command, as an exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// 0: all is well.
    Good,
    /// 1: something was found or lost.
    Findings,
    /// 2: nothing could be run.
    CouldNotRun,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Good => 0,
            Outcome::Findings => 1,
            Outcome::CouldNotRun => 2,
        })
    }
}
