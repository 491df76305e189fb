//! The suites in `proof/suites` and the hypervisor's suite. Each is a step.

use std::time::Duration;

use anyhow::Result;
use doorbell_harness::suite::LONG;

use crate::tally::Tally;
use crate::{counted, programs};
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// The package of the suites.
pub(crate) const PACKAGE: &str = "doorbell-suites";
/// The hypervisor's workspace, and the package of its suite.
pub(crate) const EL2: &str = "el2";
pub(crate) const HYPERVISOR: &str = "hypervisor-suite";
/// Maximum time for a suite to be built, or to report another case. The limit must be longer than
/// the limit of each case.
const LIMIT: Duration = Duration::from_mins(40);
/// Maximum time for a suite's long cases to report another case.
const LONG_LIMIT: Duration = Duration::from_hours(24);

/// A suite, identified by its test target.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Suite {
    /// The ordinary cases of a suite.
    Ordinary(&'static str),
    /// The cases of a suite that take hours or need an idle machine.
    Long(&'static str),
    /// The cases of the hypervisor.
    Hypervisor(&'static str),
}

impl Suite {
    /// Runs the cases, shows their output and counts them.
    pub(crate) fn run(self, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
        let (mut command, limit) = match self {
            Self::Ordinary(name) => (programs::suite(workspace, name)?, LIMIT),
            Self::Long(name) => (programs::suite(workspace, name)?, LONG_LIMIT),
            Self::Hypervisor(name) => {
                let mut cargo = process::cargo(&workspace.root.join(EL2));
                cargo.args(["test", "--no-fail-fast", "--package", HYPERVISOR, "--test", name]);
                // No other step runs the unit tests of this package.
                cargo.args((name == "hypervisor").then_some("--lib"));
                (cargo, LIMIT)
            }
        };
        let is_long = matches!(self, Self::Long(_) | Self::Hypervisor("long"));
        command.env_remove(LONG).envs(is_long.then_some((LONG, "1")));
        counted::count_all(&mut command, limit, tally)
    }
}

/// Runs the unit tests of the hypervisor's suite, shows their output and counts them.
pub(crate) fn run_unit_tests(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let mut cargo = process::cargo(&workspace.root.join(EL2));
    counted::count_all(cargo.args(["test", "--package", HYPERVISOR, "--lib"]), LIMIT, tally)
}
