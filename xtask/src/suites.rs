//! The suites of `proof/suites` and that of the hypervisor, each a step.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use doorbell_harness::suite::LONG;

use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{process, tests};

/// The package of the suites.
pub(crate) const PACKAGE: &str = "doorbell-suites";
/// The hypervisor's workspace, and the package of its suite there.
const EL2: &str = "el2";
pub(crate) const HYPERVISOR: &str = "hypervisor-suite";
/// Time in which a suite must build, or report one more case.
const LIMIT: Duration = Duration::from_mins(30);

/// Runs a suite's ordinary cases.
pub(crate) fn run(workspace: &Workspace, name: &str, tally: &mut Tally) -> Result<()> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["test", "--package", PACKAGE, "--test", name]);
    tests::count_all(&mut cargo, LIMIT, tally)
}

/// Runs a suite's cases, those too that take hours, or an idle machine.
pub(crate) fn run_long(workspace: &Workspace, name: &str, tally: &mut Tally) -> Result<()> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["test", "--package", PACKAGE, "--test", name]).env(LONG, "1");
    tests::count_all(&mut cargo, LIMIT, tally)
}

/// Runs test targets of the hypervisor's suite.
pub(crate) fn run_hypervisor(
    workspace: &Workspace,
    targets: &[&str],
    tally: &mut Tally,
) -> Result<()> {
    let mut cargo = process::cargo(&workspace.root.join(EL2));
    cargo.args(["test", "--no-fail-fast", "--package", HYPERVISOR]).args(targets);
    tests::count_all(&mut cargo, LIMIT, tally)
}

/// Runs a guest on the hypervisor, on this terminal.
pub(crate) fn run_guest(workspace: &Workspace, arguments: &[OsString]) -> Result<ExitCode> {
    let mut cargo = process::cargo(&workspace.root.join(EL2));
    cargo.args(["run", "--quiet", "--package", HYPERVISOR, "--"]).args(arguments);
    let status = cargo.status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
