//! The suites of `proof/suites`, each a step.

use std::time::Duration;

use anyhow::Result;
use doorbell_harness::suite::LONG;

use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{process, tests};

/// The package of the suites.
pub(crate) const PACKAGE: &str = "doorbell-suites";
/// The folder of their targets.
pub(crate) const FOLDER: &str = "proof/suites/tests/";
/// Time in which a suite must build, or report one more case: more than each of its cases has.
const LIMIT: Duration = Duration::from_mins(40);
/// Time in which a suite's long cases must report one more.
const LONG_LIMIT: Duration = Duration::from_hours(24);

/// Runs a suite's ordinary cases.
pub(crate) fn run(workspace: &Workspace, name: &str, tally: &mut Tally) -> Result<()> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["test", "--package", PACKAGE, "--test", name]).env_remove(LONG);
    tests::count_all(&mut cargo, LIMIT, tally)
}

/// Runs the cases of a suite that takes hours.
pub(crate) fn run_long(workspace: &Workspace, name: &str, tally: &mut Tally) -> Result<()> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["test", "--package", PACKAGE, "--test", name]).env(LONG, "1");
    tests::count_all(&mut cargo, LONG_LIMIT, tally)
}
