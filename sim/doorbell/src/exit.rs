//! The command's exit status.

use std::process::ExitCode;

/// The command's result, which determines its exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Success.
    Good = 0,
    /// There are findings, or a run was not clean.
    Findings = 1,
    /// The command could not run.
    CouldNotRun = 2,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome as u8)
    }
}
