//! The model against QEMU's GIC and ITS: both get the same accesses, and must answer alike.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::parallel::{self, Trial};
use crate::process;
use crate::qemu::{self, Version};
use crate::step::Tally;
use crate::workspace::Workspace;

/// Includes building it, but is for hangs alone: the cases have a budget of their own.
const LIMIT: Duration = Duration::from_mins(10);

/// The program that compares.
const PROGRAM: [&str; 4] = ["--package", "doorbell-oracles", "--bin", "differential"];

/// Cases of each family in a long run.
const LONG_CASES: u32 = 100_000;
/// Time after which a long run hangs.
const LONG_LIMIT: Duration = Duration::from_hours(24);

/// Options of a person's run.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Cases of each family
    #[arg(long, default_value_t = LONG_CASES)]
    cases: u32,
    /// Of all choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Effort on each QEMU.
struct Budget {
    cases: u32,
    seed: u64,
    seconds: Option<u64>,
    limit: Duration,
}

/// Effort of a run of all steps: half a minute, with both QEMUs side by side. The package's tests
/// plant faults and find them, against a second model.
const FIXED: Budget = Budget { cases: 4000, seed: 1, seconds: Some(28), limit: LIMIT };

/// A fixed budget, on each QEMU that can be had.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    compare(workspace, &FIXED, tally)
}

/// As long as wanted, and plants faults in the end; prints what differs.
pub(crate) fn run_alone(workspace: &Workspace, wanted: &Wanted) -> Result<ExitCode> {
    let mut tally = Tally::default();
    compare(workspace, &long(wanted.cases, wanted.seed), &mut tally)?;
    Ok(if tally.failures() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The cases of a long run.
pub(crate) fn run_long(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    compare(workspace, &long(LONG_CASES, FIXED.seed), tally)
}

fn long(cases: u32, seed: u64) -> Budget {
    Budget { cases, seed, seconds: None, limit: LONG_LIMIT }
}

fn compare(workspace: &Workspace, budget: &Budget, tally: &mut Tally) -> Result<()> {
    // Once, before two of them want it at the same time.
    process::must(process::cargo(&workspace.root).arg("build").args(PROGRAM))?;
    let mut trials: Vec<Trial<'_>> = Vec::new();
    for version in Version::ALL {
        match qemu::fetch(workspace, version) {
            Err(absent) => tally.skip(format!("QEMU of {version:?}: {absent:#}")),
            Ok(tools) => trials.push(Box::new(move |tally| {
                let qemu = tools.command(qemu::PROGRAM);
                compare_with(workspace, version, &qemu, budget, tally)
            })),
        }
    }
    parallel::tallied(&trials, tally);
    Ok(())
}

fn compare_with(
    workspace: &Workspace,
    version: Version,
    qemu: &std::process::Command,
    budget: &Budget,
    tally: &mut Tally,
) -> Result<()> {
    let libraries =
        qemu.get_envs().find(|(name, _)| *name == "LD_LIBRARY_PATH").and_then(|(_, path)| path);
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["run", "--quiet"]).args(PROGRAM).args(["--", "--qemu"]);
    cargo.arg(qemu.get_program()).arg("--libraries").arg(libraries.context("QEMU's libraries")?);
    cargo.args(["--cases", &budget.cases.to_string(), "--seed", &budget.seed.to_string()]);
    match budget.seconds {
        Some(seconds) => cargo.args(["--seconds", &seconds.to_string()]),
        None => cargo.arg("--plant"),
    };
    let failures = tally.failures();
    let status = process::watch(&mut cargo, budget.limit, |line| {
        println!("{version:?}: {line}");
        if line.starts_with("ok - ") {
            tally.pass(1);
        } else if let Some(what) = line.strip_prefix("not ok - ") {
            tally.fail(format!("{version:?}'s QEMU: {what}"));
        }
    })?;
    ensure!(status.success() || tally.failures() > failures, "the comparison ended with {status}");
    Ok(())
}
