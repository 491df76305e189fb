//! The suites of `proof/suites`, each a step.

use std::ffi::OsString;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use doorbell_harness::suite::LONG;

use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{process, tests};

/// The package of the suites.
pub(crate) const PACKAGE: &str = "doorbell-suites";
/// Time in which a suite must build, or report one more case.
const LIMIT: Duration = Duration::from_mins(30);

/// Runs a suite's ordinary cases.
pub(crate) fn run(workspace: &Workspace, name: &str, tally: &mut Tally) -> Result<()> {
    tests::count_all(&mut test(workspace, name), LIMIT, tally)
}

/// Runs a suite with its long cases.
pub(crate) fn run_long(workspace: &Workspace, name: &str, tally: &mut Tally) -> Result<()> {
    tests::count_all(test(workspace, name).env(LONG, "1"), LIMIT, tally)
}

fn test(workspace: &Workspace, name: &str) -> Command {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["test", "--package", PACKAGE, "--test", name]);
    cargo
}

/// Runs a program of the suites' package on this terminal, with these arguments.
pub(crate) fn forward(
    workspace: &Workspace,
    program: &str,
    arguments: &[OsString],
) -> Result<ExitCode> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["run", "--quiet", "--package", PACKAGE, "--bin", program, "--"]).args(arguments);
    let status = cargo.status().context("cargo cannot be started")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
