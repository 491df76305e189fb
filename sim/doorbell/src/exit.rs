//! Exit status of the command.

use std::process::ExitCode;

/// Result of the command, which determines the exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// 0: success.
    Good,
    /// 1: findings, or a run that is not clean.
    Findings,
    /// 2: the command could not run.
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
