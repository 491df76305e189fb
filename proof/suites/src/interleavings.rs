//! Runs lock-free code under a scheduler that explores interleavings (`--cfg shuttle`). A package's
//! checks are the unit tests in its module `interleavings`.
//!
//! The suite `interleavings-faults` plants faults in that code that the checks must find, from
//! `src/interleavings/mutants.txt`. All faults of all packages are planted in one copy of the
//! sources, which is built once; an environment variable selects one of them for a run.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::UNIX_EPOCH;

use anyhow::{Context, Result, ensure};
use doorbell_harness::suite::{Case, OrAbsent, Shared, is_long};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{hang, process, toolchain};

use crate::mutant::copy::{self, Faults};
use crate::mutant::{self, Mutant};

/// Packages with interleaving checks. The packages whose faults take longest are first, so that no
/// CPU is idle at the end.
const CHECKED: &[&str] =
    &["vgic", "irq-routing", "irq-domain", "hyperv-vpci", "doorbell-fallible", "gic-driver"];
/// Path of a package's faults, relative to its folder.
const MUTANTS: &str = "src/interleavings/mutants.txt";
/// Environment variable with the seed of all schedulers. Without it, each uses its own.
const SEED: &str = "SHUTTLE_RANDOM_SEED";

/// Returns a case for each package's checks. In the long run, they explore more interleavings, and
/// others each time.
pub(crate) fn cases() -> Vec<Case> {
    let every = |package: &&'static str| {
        let package = *package;
        Case::of(format!("{package}: every check"), move || check(package))
    };
    let mut cases: Vec<_> = CHECKED.iter().map(every).collect();
    if is_long() {
        cases.push(Case::of("clippy", clippy));
    }
    cases
}

/// Returns a case for each planted fault, which runs the fault's checks.
pub(crate) fn faults() -> Result<Vec<Case>> {
    let planted = planted(workspace::this()?)?.into_iter().flat_map(|(package, faults)| {
        faults.into_iter().map(move |(number, fault)| {
            let name = format!("{package}: {}", fault.name);
            Case::of(name, move || find(package, number, &fault))
        })
    });
    Ok(planted.collect())
}

/// Runs clippy on the checks, which it ignores without `--cfg shuttle`.
fn clippy() -> Result<()> {
    let workspace = workspace::this()?;
    toolchain::need_component(&workspace.root, "clippy").or_absent("clippy")?;
    let mut cargo = cargo(workspace, &workspace.root, "clippy");
    process::must(cargo.args(["--locked", "--tests", "--", "-D", "warnings"]))
}

/// Runs the checks of a package.
fn check(package: &str) -> Result<()> {
    let mut checks = checks(package)?;
    if is_long() && env::var_os(SEED).is_none() {
        let seed = UNIX_EPOCH.elapsed()?.as_secs().to_string();
        eprintln!("{package}: to repeat this run, set {SEED}={seed}");
        checks.env(SEED, seed);
    }
    let mut failed = Vec::new();
    let limit = if is_long() { hang::LONG } else { hang::RUN };
    let status = process::watch(checks.arg("interleavings::"), limit, |line| {
        eprintln!("{line}");
        failed.extend(line.strip_suffix(" ... FAILED").map(str::to_owned));
    })?;
    ensure!(status.success(), "the checks ended with {status}; failed: {}", failed.join(", "));
    Ok(())
}

/// Selects a fault, and runs the checks that the fault names. Returns an error unless every one of
/// the checks fails.
fn find(package: &str, number: usize, fault: &Mutant) -> Result<()> {
    let mut checks = faulty_checks(package)?;
    checks.env(mutant::variable(package), number.to_string()).arg("--exact");
    checks.args(fault.checks.iter().map(|check| format!("interleavings::{check}")));
    let output = process::output(&mut checks)?;
    let printed = String::from_utf8_lossy(&output.stdout);
    for check in &fault.checks {
        let failure = format!("test interleavings::{check} ... FAILED");
        ensure!(printed.lines().any(|line| line == failure), "{check} does not find the fault");
    }
    Ok(())
}

/// Returns the command that runs a package's checks; callers append the names of checks.
fn checks(package: &str) -> Result<Command> {
    static BUILT: Shared<Vec<PathBuf>> = Shared::new();
    program_of(package, BUILT.get(|| build(workspace::this()?, None))?)
}

/// Returns the command that runs a package's checks in a copy of the sources that has all faults.
/// The copy remains for the next run, which builds only what has changed.
fn faulty_checks(package: &str) -> Result<Command> {
    static BUILT: Shared<Vec<PathBuf>> = Shared::new();
    let built = BUILT.get(|| {
        let workspace = workspace::this()?;
        let copy = copy::plant(workspace, "mutants", &planted(workspace)?)?;
        build(workspace, Some(&copy))
    });
    program_of(package, built?)
}

fn program_of(package: &str, built: &[PathBuf]) -> Result<Command> {
    let prefix = format!("{}-", package.replace('-', "_"));
    let is_meant = |program: &&PathBuf| {
        program.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    let program = built.iter().find(is_meant);
    let program = program.with_context(|| format!("cargo built no checks of {package}"))?;
    Ok(Command::new(program))
}

/// Builds the checks, in a copy of the sources if there is one.
fn build(workspace: &Workspace, copy: Option<&Path>) -> Result<Vec<PathBuf>> {
    let sources = copy.unwrap_or(&workspace.root);
    let mut cargo = cargo(workspace, sources, "test");
    // `--locked` would fail in a copy, because the lock file lists dependencies that it lacks.
    let option = if copy.is_some() { "--offline" } else { "--locked" };
    let output = process::output(cargo.args([option, "--no-run"]))?;
    let printed = String::from_utf8_lossy(&output.stderr);
    // Cargo's progress comes before the compiler's errors.
    let errors = printed.find("\nerror").map_or(&*printed, |at| &printed[at..]);
    ensure!(output.status.success(), "the checks cannot be built: {}", errors.trim_end());
    let programs = printed.lines().filter_map(|line| {
        let (_, program) = line.trim().strip_prefix("Executable ")?.rsplit_once(" (")?;
        Some(sources.join(program.strip_suffix(')')?))
    });
    Ok(programs.collect())
}

/// Returns a cargo command for the checks, with the flag `--cfg shuttle`, which needs a separate
/// folder for the artifacts.
fn cargo(workspace: &Workspace, sources: &Path, subcommand: &str) -> Command {
    let mut cargo = process::cargo(sources);
    cargo.args([subcommand, "--lib", "--all-features"]);
    cargo.args(CHECKED.iter().flat_map(|package| ["--package", package]));
    cargo.arg("--target-dir").arg(workspace.target.join("shuttle"));
    cargo.env("RUSTFLAGS", "--cfg shuttle").env("CARGO_PROFILE_DEV_DEBUG", "0");
    // The checks run for minutes, and a fifth longer if their parts are optimized separately.
    cargo.env("CARGO_PROFILE_DEV_LTO", "false");
    cargo
}

/// Returns all packages' faults.
fn planted(workspace: &Workspace) -> Result<Faults> {
    let of = |package: &&'static str| {
        let faults = mutant::read(&copy::folder(workspace, package)?.join(MUTANTS))?;
        Ok((*package, (1..).zip(faults).collect()))
    };
    CHECKED.iter().map(of).collect()
}
