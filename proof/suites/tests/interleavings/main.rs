//! Runs lock-free code under a scheduler that explores interleavings (`--cfg shuttle`), and plants
//! faults in that code that the checks must find.
//!
//! A package's checks are the unit tests in its module `interleavings`. Its faults are listed in
//! `src/interleavings/mutants.txt`. All faults of all packages are planted in one copy of the
//! sources, which is built once; an environment variable selects one of them for a run, or none.

#![forbid(unsafe_code)]

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use doorbell_harness::suite::{self, Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{process, toolchain};
use doorbell_suites::mutant::copy::{self, Faults};
use doorbell_suites::mutant::{self, Mutant};

/// Packages with interleaving checks. The packages whose faults take longest are first, so that no
/// CPU is idle at the end.
const CHECKED: &[&str] =
    &["vgic", "irq-routing", "irq-domain", "hyperv-vpci", "doorbell-fallible", "gic-driver"];
/// Path of a package's faults, relative to its folder.
const MUTANTS: &str = "src/interleavings/mutants.txt";
/// Time after which a run, which may build everything, counts as hung.
const LIMIT: Duration = Duration::from_mins(20);

/// Environment variable with the seed of all schedulers. Without it, each uses its own.
const SEED: &str = "SHUTTLE_RANDOM_SEED";

/// Runs every check without a fault and each fault's checks with the fault. In the long run, the
/// checks without a fault explore more interleavings, and others each time.
fn main() -> Result<ExitCode> {
    let mut cases = Vec::new();
    for (package, faults) in faults(workspace::this()?)? {
        cases.push(Case::new(format!("{package}: every check"), LIMIT, move || check(package)));
        cases.extend(faults.into_iter().map(|(number, fault)| {
            let name = format!("{package}: {}", fault.name);
            Case::new(name, LIMIT, move || find(package, number, &fault))
        }));
    }
    if suite::is_long() {
        cases.push(Case::new("clippy", LIMIT, clippy));
    }
    Ok(suite::main(cases))
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
    if suite::is_long() && env::var_os(SEED).is_none() {
        let seed = UNIX_EPOCH.elapsed()?.as_secs().to_string();
        eprintln!("{package}: to repeat this run, set {SEED}={seed}");
        checks.env(SEED, seed);
    }
    let mut failed = Vec::new();
    let status = process::watch(checks.arg("interleavings::"), LIMIT, |line| {
        eprintln!("{line}");
        failed.extend(line.strip_suffix(" ... FAILED").map(str::to_owned));
    })?;
    ensure!(status.success(), "the checks ended with {status}; failed: {}", failed.join(", "));
    Ok(())
}

/// Selects a fault, and runs the checks that the fault names. Returns an error unless every one of
/// the checks fails.
fn find(package: &str, number: usize, fault: &Mutant) -> Result<()> {
    let mut checks = checks(package)?;
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
    let built = BUILT.get(|| build(workspace::this()?))?;
    let prefix = format!("{}-", package.replace('-', "_"));
    let is_meant = |program: &&PathBuf| {
        program.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
    };
    let program = built.iter().find(is_meant);
    let program = program.with_context(|| format!("cargo built no checks of {package}"))?;
    Ok(Command::new(program))
}

/// Builds the checks in a copy of the sources that has all faults. The copy remains for the next
/// run, which builds only what has changed.
fn build(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let copy = copy::plant(workspace, "mutants", &faults(workspace)?)?;
    // `--locked` would fail, because the lock file lists dependencies that the copy lacks.
    let mut cargo = cargo(workspace, &copy, "test");
    let output = process::output(cargo.args(["--offline", "--no-run"]))?;
    let printed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the checks cannot be built:\n{}", printed.trim_end());
    let programs = printed.lines().filter_map(|line| {
        let (_, program) = line.trim().strip_prefix("Executable ")?.rsplit_once(" (")?;
        Some(copy.join(program.strip_suffix(')')?))
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
fn faults(workspace: &Workspace) -> Result<Faults> {
    let of = |package: &&'static str| {
        let faults = mutant::read(&copy::folder(workspace, package)?.join(MUTANTS))?;
        Ok((*package, (1..).zip(faults).collect()))
    };
    CHECKED.iter().map(of).collect()
}
