//! The suites in `proof/suites` and `el2/suite`. Each is a step.

use anyhow::{Result, ensure};
use doorbell_harness::hang;
use doorbell_harness::suite::LONG;
use doorbell_harness::workspace::Workspace;

use crate::tally::Tally;
use crate::{counted, programs};

/// The test target of all suites but the hypervisor's, which are targets of another package.
pub(crate) const PROGRAM: &str = "suites";
/// The suites of the hypervisor.
const HYPERVISORS: [&str; 2] = ["hypervisor", "long"];

/// A suite.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// Runs its cases that take hours or need an idle machine.
    pub(crate) is_long: bool,
}

/// The part of a step that is run. Parts of a suite are stated by parts of its cases' names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Whole,
    Only(&'static [&'static str]),
    Without(&'static [&'static str]),
}

impl Suite {
    /// Runs cases, shows their output and counts them.
    pub(crate) fn run(self, part: Part, workspace: &Workspace, tally: &mut Tally) -> Result<()> {
        match part {
            Part::Whole => self.run_with(&[], workspace, tally),
            Part::Without(cases) => {
                let skipped: Vec<_> = cases.iter().flat_map(|case| ["--skip", case]).collect();
                self.run_with(&skipped, workspace, tally)
            }
            Part::Only(cases) => cases.iter().try_for_each(|case| {
                let before = tally.cases();
                self.run_with(&[case], workspace, tally)?;
                ensure!(tally.cases() > before, "no case of {} contains `{case}`", self.name);
                Ok(())
            }),
        }
    }

    fn run_with(self, words: &[&str], workspace: &Workspace, tally: &mut Tally) -> Result<()> {
        let is_hypervisors = HYPERVISORS.contains(&self.name);
        let program = if is_hypervisors { self.name } else { PROGRAM };
        let mut command = programs::suite(workspace, program)?;
        command.args((!is_hypervisors).then_some(self.name)).args(words).env_remove(LONG);
        if self.is_long {
            command.env(LONG, "1");
        }
        // A case has a guard of its own, by the slowness that its process measures, and others may
        // wait for it.
        let silence = if self.is_long { 2 * hang::LONG } else { 4 * hang::CASE };
        counted::count_all(&mut command, silence, tally)
    }
}
