//! Compares the model with QEMU's GIC and ITS. Both receive the same accesses, and must return the
//! same results.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::dtb::Tools;
use doorbell_harness::hang;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::{Case, OrAbsent, Shared, is_long};
use doorbell_harness::temporary::Folder;
use doorbell_harness::workspace;
use doorbell_oracles::differential::{
    CPUS, Comparison, Finding, Limits, Model, Peer as _, Qemu, SecurityView, Server, World,
    compare, reset_values, sequences,
};

/// Number of cases of each family in a long run.
pub(crate) const LONG_CASES: u32 = 100_000;

/// The effort spent on each QEMU.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    /// Maximum number of cases of each family.
    pub(crate) cases: u32,
    /// Seed of all random choices.
    pub(crate) seed: u64,
    /// Time for each family, or `None` without a limit.
    pub(crate) time: Option<Duration>,
}

impl Effort {
    /// The effort in `cargo xtask test`: half a minute on two CPUs, which run three cases at a
    /// time.
    pub(crate) const SHORT: Self =
        Self { cases: 4000, seed: 1, time: Some(Duration::from_secs(7)) };

    /// Returns the effort of a run without a time limit.
    pub(crate) const fn long(cases: u32, seed: u64) -> Self {
        Self { cases, seed, time: None }
    }
}

pub(crate) fn cases() -> Vec<Case> {
    let long = Effort::long(LONG_CASES, Effort::SHORT.seed);
    cases_of(if is_long() { long } else { Effort::SHORT })
}

/// Returns the comparisons with each of Debian's QEMUs.
pub(crate) fn cases_of(effort: Effort) -> Vec<Case> {
    Version::ALL.into_iter().flat_map(|version| cases_with(version, effort)).collect()
}

/// Comparison that a case runs.
type Comparing = Box<dyn FnOnce(&mut Pair) -> Result<()> + Send>;

fn cases_with(version: Version, effort: Effort) -> Vec<Case> {
    let tools = Arc::new(Shared::new());
    let limit = if effort.time.is_some() { hang::CASE } else { hang::LONG };
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
    cases.push(case(
        "a script through the program `qtest`",
        World::Stopped,
        Box::new(follow_script),
    ));
    let run = Box::new(Pair::compare_sequences);
    cases.push(case("every sequence of four operations on an interrupt", World::Running, run));
    cases
}

/// Lines that leave the identification registers alone, which differ, and use memory that is zero
/// on both machines.
const SCRIPT: &[&str] = &[
    "readl 0x0800ffe8",
    "writel 0x08000000 0x12",
    "readl 0x08000000",
    "writel 0x08000420 0xffffffff",
    "readb 0x08000421",
    "readq 0x08000401",
    "write 0x41000010 6 0x010203040506",
    "readq 0x41000010",
    "memset 0x41000012 3 0xaa",
    "read 0x4100000f 9",
    "set_irq_in /machine/unattached/device[3] unnamed-gpio-in 1 1",
    "readl 0x08000204",
    "set_irq_in /machine/unattached/device[3] unnamed-gpio-in 315 1",
    "readl 0x080d0200",
    "writeq 0x08080080 0x800000004101000f",
    "writel 0x08080000 1",
    "writeq 0x08080088 0xfa00",
    "readq 0x08080090",
    "readq -8",
    "endianness",
];

/// Checks that the program `qtest` answers each line of a script as QEMU does.
fn follow_script(pair: &mut Pair) -> Result<()> {
    let mut program = Server::new(CPUS, SecurityView::Single)?;
    for line in SCRIPT {
        let (ours, theirs) = (program.answer(line), pair.qemu.answer(line)?);
        ensure!(ours.trim_end() == theirs, "{line}: {ours:?} instead of {theirs:?}");
    }
    Ok(())
}

/// The two machines.
struct Pair {
    model: Model,
    qemu: Qemu,
    /// The folder of QEMU's socket, which is removed after QEMU has ended.
    _folder: Folder,
}

impl Pair {
    fn start(tools: &Tools, world: World) -> Result<Self> {
        let folder = Folder::new()?;
        let qemu = Qemu::start(tools.command(qemu::PROGRAM), folder.path(), world);
        let qemu = qemu.context("QEMU cannot be started")?;
        Ok(Self { model: Model::new(world, qemu.watch())?, qemu, _folder: folder })
    }

    fn compare_after_reset(&mut self) -> Result<()> {
        reset_values(&mut self.model, &mut self.qemu)?.iter().try_for_each(judge)
    }

    fn compare_sequences(&mut self) -> Result<()> {
        let finding = sequences(&mut self.model, &mut self.qemu)?;
        eprintln!("{} sequences agree", finding.agreed);
        judge(&finding)
    }

    fn compare(&mut self, of: Comparison, effort: Effort) -> Result<()> {
        let deadline = effort.time.map(|time| Instant::now() + time);
        let limits = Limits { cases: effort.cases, deadline, seed: effort.seed };
        let finding = compare(of, limits, &mut self.model, &mut self.qemu)?;
        eprintln!("{} cases agree: {}; {}", finding.agreed, of.family.name(), of.world.name());
        ensure!(finding.mismatch.is_some() || finding.agreed > 0, "no case was compared");
        judge(&finding)
    }
}

fn judge(finding: &Finding) -> Result<()> {
    match &finding.mismatch {
        None => Ok(()),
        Some(mismatch) => bail!("after {} cases that agree\n{mismatch}", finding.agreed),
    }
}
