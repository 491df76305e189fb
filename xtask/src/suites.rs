//! The suites of `proof/suites`, each a step.

use std::time::Duration;

use anyhow::Result;
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
