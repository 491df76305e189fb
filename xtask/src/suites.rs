//! The suites of `proof/suites`, each a step.

use std::time::Duration;

use anyhow::Result;

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
