//! The suites of `proof/suites` and that of the hypervisor, each a step.

use std::time::Duration;

use anyhow::Result;
use doorbell_harness::suite::LONG;

use crate::counted;
use crate::tally::Tally;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// The package of the suites.
pub(crate) const PACKAGE: &str = "doorbell-suites";
/// The folder of their targets.
pub(crate) const FOLDER: &str = "proof/suites/tests/";
/// The hypervisor's workspace, and the package of its suite there.
pub(crate) const EL2: &str = "el2";
pub(crate) const HYPERVISOR: &str = "hypervisor-suite";
/// Time in which a suite must build, or report one more case: more than each of its cases has.
const LIMIT: Duration = Duration::from_mins(40);
/// Time in which a suite's long cases must report one more.
const LONG_LIMIT: Duration = Duration::from_hours(24);

/// A suite, by the name of its test target.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Suite {
    /// The ordinary cases of a suite.
    Ordinary(&'static str),
    /// The cases of a suite that take hours, or an idle machine.
    Long(&'static str),
    /// Cases of the hypervisor.
    Hypervisor(&'static str),
}

impl Suite {
    /// Runs the cases, shown and counted.
    pub(crate) fn run(self, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
        let (folder, package, name) = match self {
            Self::Ordinary(name) | Self::Long(name) => ("", PACKAGE, name),
            Self::Hypervisor(name) => (EL2, HYPERVISOR, name),
        };
        let mut cargo = process::cargo(&workspace.root.join(folder));
        cargo.args(["test", "--no-fail-fast", "--package", package, "--test", name]);
        let limit = match self {
            Self::Long(_) => {
                cargo.env(LONG, "1");
                LONG_LIMIT
            }
            Self::Ordinary(_) | Self::Hypervisor(_) => {
                cargo.env_remove(LONG);
                LIMIT
            }
        };
        if name == HYPERVISOR_STEP {
            cargo.arg("--lib");
        }
        counted::count_all(&mut cargo, limit, tally)
    }
}

/// Runs the unit tests of the hypervisor's suite, shown and counted.
pub(crate) fn run_unit_tests(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let mut cargo = process::cargo(&workspace.root.join(EL2));
    cargo.args(["test", "--package", HYPERVISOR, "--lib"]);
    counted::count_all(&mut cargo, LIMIT, tally)
}

/// The target whose step runs the unit tests of its package too: no other step builds it.
const HYPERVISOR_STEP: &str = "hypervisor";
