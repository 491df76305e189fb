//! The model against QEMU's GIC and ITS: both get the same accesses, and must answer alike.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::dtb::Tools;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::{Case, OrAbsent, Shared};
use doorbell_harness::temporary::Folder;
use doorbell_harness::workspace;
use doorbell_oracles::differential::{
    Comparison, Finding, Limits, MUTANTS, Model, Mutant, Peer as _, Qemu, World, compare, hunt,
    reset_values,
};

/// Cases of each family in a long run.
pub const LONG_CASES: u32 = 100_000;
/// A planted fault is found within so many cases.
const CASES_OF_A_HUNT: u32 = 2000;
/// Time limit of a comparison, for hangs alone: a short one has a budget of its own.
const LIMIT: Duration = Duration::from_mins(10);
/// Time after which a comparison without a budget hangs.
const LONG_LIMIT: Duration = Duration::from_hours(24);

/// Effort on each QEMU.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Cases of each family, at most.
    pub cases: u32,
    /// Seed of all choices.
    pub seed: u64,
    /// Time for each family; without one, faults are planted as well, and must be found.
    pub time: Option<Duration>,
}

impl Effort {
    /// Effort of a run of all steps: half a minute on two CPUs. It plants no faults, because the
    /// tests of the oracles do, against a second model.
    pub const SHORT: Self =
        Self { cases: 4000, seed: 1, time: Some(Duration::from_millis(28_000 / 6)) };

    /// Returns the effort of a run without a limit of time.
    pub const fn long(cases: u32, seed: u64) -> Self {
        Self { cases, seed, time: None }
    }
}

/// Returns the comparisons with each of Debian's QEMUs.
pub fn cases(effort: Effort) -> Vec<Case> {
    Version::ALL.into_iter().flat_map(|version| cases_with(version, effort)).collect()
}

/// Work of a case.
type Comparing = Box<dyn FnOnce(&mut Pair) -> Result<()> + Send>;

fn cases_with(version: Version, effort: Effort) -> Vec<Case> {
    let tools = Arc::new(Shared::new());
    let limit = if effort.time.is_some() { LIMIT } else { LONG_LIMIT };
    let case = |what: &str, world: World, run: Comparing| {
        let tools = Arc::clone(&tools);
        Case::new(format!("{version:?}'s QEMU, {}: {what}", world.name()), limit, move || {
            let tools = tools.get(|| qemu::fetch(workspace::this()?, version).or_absent("QEMU"))?;
            run(&mut Pair::start(tools, world)?)
        })
    };
    let mut cases = Vec::new();
    for world in World::ALL {
        cases.push(case("registers after reset", world, Box::new(Pair::compare_after_reset)));
        for &family in world.families() {
            let run = move |pair: &mut Pair| pair.compare(Comparison { family, world }, effort);
            cases.push(case(family.name(), world, Box::new(run)));
        }
    }
    if effort.time.is_none() {
        for mutant in MUTANTS {
            let run = move |pair: &mut Pair| pair.find(mutant, effort.seed);
            cases.push(case(
                &format!("a planted fault is found: {}", mutant.name),
                mutant.world,
                Box::new(run),
            ));
        }
    }
    cases
}

/// The two machines.
struct Pair {
    model: Model,
    qemu: Qemu,
    /// Folder of QEMU's socket, removed after QEMU.
    _folder: Folder,
}

impl Pair {
    fn start(tools: &Tools, world: World) -> Result<Self> {
        let folder = Folder::new()?;
        let command = tools.command(qemu::PROGRAM);
        let libraries = command.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH");
        let libraries = libraries.and_then(|(_, path)| path).context("QEMU's libraries")?;
        let program = Path::new(command.get_program());
        let qemu = Qemu::start(program, Some(Path::new(libraries)), folder.path(), world);
        let qemu = qemu.context("QEMU does not start")?;
        Ok(Self { model: Model::new(world, qemu.watch())?, qemu, _folder: folder })
    }

    fn compare_after_reset(&mut self) -> Result<()> {
        reset_values(&mut self.model, &mut self.qemu)?.iter().try_for_each(judge)
    }

    fn compare(&mut self, of: Comparison, effort: Effort) -> Result<()> {
        let deadline = effort.time.map(|time| Instant::now() + time);
        let limits = Limits { cases: effort.cases, deadline, seed: effort.seed };
        let finding = compare(of, limits, &mut self.model, &mut self.qemu)?;
        eprintln!("{} cases agree: {}; {}", finding.agreed, of.family.name(), of.world.name());
        ensure!(finding.mismatch.is_some() || finding.agreed > 0, "no case was compared");
        judge(&finding)
    }

    /// Shows that the comparison finds a fault, by planting it.
    fn find(&mut self, mutant: &Mutant, seed: u64) -> Result<()> {
        let limits = Limits { cases: CASES_OF_A_HUNT, deadline: None, seed };
        hunt(mutant, limits, &mut self.qemu)?.map(drop).context("it is not found")
    }
}

fn judge(finding: &Finding) -> Result<()> {
    match &finding.mismatch {
        None => Ok(()),
        Some(mismatch) => bail!("after {} that agree\n{mismatch}", finding.agreed),
    }
}
