//! The command's exit status.

use std::process::ExitCode;

/// The command's result, which determines its exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// 0: success.
    Good,
    /// 1: there are findings, or a run was not clean.
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
