//! The suites in `proof/suites` and `el2/suite`. Each is a step.

use std::time::Duration;

use anyhow::Result;
use doorbell_harness::suite::LONG;

use crate::tally::Tally;
use crate::{counted, programs};
use doorbell_harness::workspace::Workspace;

/// The package of the suites.
pub(crate) const PACKAGE: &str = "doorbell-suites";
/// The package of the hypervisor's suite.
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
}

impl Suite {
    /// Runs the cases, shows their output and counts them.
    pub(crate) fn run(self, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
        let (name, limit, long) = match self {
            Self::Ordinary(name) => (name, LIMIT, None),
            Self::Long(name) => (name, LONG_LIMIT, Some((LONG, "1"))),
        };
        let mut command = programs::suite(workspace, name)?;
        command.env_remove(LONG).envs(long);
        counted::count_all(&mut command, limit, tally)
    }
}
