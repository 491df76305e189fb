//! Runs lock-free code under a scheduler that explores interleavings (`--cfg shuttle`), and plants
//! faults in that code that the checks must find.
//!
//! A package's checks are the unit tests in its module `interleavings`. Its faults are listed in
//! `src/interleavings/mutants.txt`, and each is applied to a copy of the sources.

#![forbid(unsafe_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::suite::{self, Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{process, toolchain};
use doorbell_suites::mutant::{self, Mutant};

/// Packages with interleaving checks. The packages whose faults take longest are first, so that no
/// CPU is idle at the end.
const CHECKED: &[&str] = &["vgic", "irq-routing", "irq-domain", "doorbell-fallible"];
/// Path of a package's faults, relative to its folder.
const MUTANTS: &str = "src/interleavings/mutants.txt";
/// Parts of the repository that make up the workspace.
const COPIED: &[&str] = &["Cargo.toml", "Cargo.lock", "crates", "proof", "sim", "xtask"];
/// Time after which a run, which may build everything, counts as hung.
const LIMIT: Duration = Duration::from_mins(20);

/// Runs every check, and enough faults to make each check fail once; the long run tests every
/// fault.
fn main() -> Result<ExitCode> {
    let mut cases = Vec::new();
    for package in CHECKED {
        cases.push(Case::new(format!("{package}: every check"), LIMIT, || check(package)));
        let faults = mutants(workspace::this()?, package)?;
        let faults = if suite::is_long() { faults } else { mutant::covering(faults) };
        cases.extend(faults.into_iter().map(|fault| {
            let name = format!("{package}: {}", fault.name);
            Case::new(name, LIMIT, move || find(package, &fault))
        }));
    }
    cases.push(Case::new("clippy", LIMIT, clippy));
    Ok(suite::main(cases))
}

/// Runs clippy on the checks, which it ignores without `--cfg shuttle`.
fn clippy() -> Result<()> {
    let workspace = workspace::this()?;
    toolchain::need_component(&workspace.root, "clippy").or_absent("clippy")?;
    let mut cargo = cargo(&Sources::own(workspace), "clippy", CHECKED);
    process::must(cargo.args(["--tests", "--", "-D", "warnings"]))
}

/// Builds the checks of every package once, and returns the sources.
fn built() -> Result<&'static Sources> {
    static BUILT: Shared<Sources> = Shared::new();
    BUILT.get(|| {
        let own = Sources::own(workspace::this()?);
        for package in CHECKED {
            process::must(cargo(&own, "test", &[package]).arg("--no-run"))?;
        }
        Ok(own)
    })
}

/// Runs the checks of a package.
fn check(package: &str) -> Result<()> {
    let mut checks = checks(built()?, package);
    let mut failed = Vec::new();
    let status = process::watch(checks.arg("interleavings::"), LIMIT, |line| {
        eprintln!("{line}");
        failed.extend(line.strip_suffix(" ... FAILED").map(str::to_owned));
    })?;
    ensure!(status.success(), "the checks ended with {status}; failed: {}", failed.join(", "));
    Ok(())
}

/// Unused copies of the sources, in which faults are tested. A case that finds no unused copy
/// creates one.
static IDLE: Mutex<Vec<Sources>> = Mutex::new(Vec::new());

/// Checks that a fault is found in a copy of the sources.
fn find(package: &str, fault: &Mutant) -> Result<()> {
    static COPIES: Mutex<usize> = Mutex::new(0);
    let workspace = workspace::this()?;
    // A copy starts with the build artifacts of the checks.
    let here = built()?;
    let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let copy = if let Some(copy) = idle {
        copy
    } else {
        let mut copies = COPIES.lock().unwrap_or_else(PoisonError::into_inner);
        *copies += 1;
        here.copied(workspace, *copies)?
    };
    let outcome = find_in(workspace, &copy, package, fault);
    IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
    outcome
}

/// The workspace's sources, or a copy of them, and a separate folder for their artifacts, because
/// `--cfg shuttle` changes all artifacts.
struct Sources {
    root: PathBuf,
    artifacts: PathBuf,
    /// Cargo option for the lock file. `--locked` fails in a copy, because its lock file lists
    /// dependencies that the copy lacks.
    lock: &'static str,
}

impl Sources {
    fn own(workspace: &Workspace) -> Self {
        let artifacts = workspace.target.join("shuttle");
        Self { root: workspace.root.clone(), artifacts, lock: "--locked" }
    }

    /// Creates a copy for one worker, with separate artifacts, so that no worker waits for another
    /// one's compiler. The copy starts with these artifacts; the artifacts of the registry's
    /// packages remain valid.
    fn copied(&self, workspace: &Workspace, worker: usize) -> Result<Self> {
        let copy = workspace.target.join(format!("mutants-{worker}"));
        if copy.exists() {
            fs::remove_dir_all(&copy)?;
        }
        let (root, artifacts) = (copy.join("sources"), copy.join("target"));
        fs::create_dir_all(&root)?;
        for part in COPIED {
            copy_all(&workspace.root.join(part), &root.join(part))?;
        }
        for package in CHECKED {
            let manifest = root.join(workspace.relative(folder(workspace, package)?));
            let manifest = manifest.join("Cargo.toml");
            fs::write(&manifest, without_itself(package, &read(&manifest)?))?;
        }
        let built = artifacts.join("debug");
        fs::create_dir_all(&built)?;
        for part in [".fingerprint", "build", "deps"] {
            // Preserve modification times in the copy: cargo uses them to recognize valid
            // artifacts.
            let mut copy = process::command("cp", &self.artifacts.join("debug"));
            process::must(copy.arg("--archive").arg(part).arg(&built))?;
        }
        Ok(Self { root, artifacts, lock: "--offline" })
    }
}

/// Removes a package's dependency on itself from its manifest. The dependency only enables features
/// for the package's integration tests, but makes cargo compile each fault twice.
fn without_itself(package: &str, manifest: &str) -> String {
    let own = format!("{package} = {{ path = \".\"");
    manifest.split_inclusive('\n').filter(|line| !line.starts_with(&own)).collect()
}

/// Returns the command that runs a package's checks; callers append the names of checks.
fn checks(sources: &Sources, package: &str) -> Command {
    let mut cargo = cargo(sources, "test", &[package]);
    cargo.args(["--no-fail-fast", "--"]);
    cargo
}

/// Returns a cargo command with the flag `--cfg shuttle`.
fn cargo(sources: &Sources, subcommand: &str, packages: &[&str]) -> Command {
    let mut cargo = process::cargo(&sources.root);
    cargo.args([subcommand, "--lib", "--all-features", sources.lock]);
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    cargo.arg("--target-dir").arg(&sources.artifacts);
    cargo.env("RUSTFLAGS", "--cfg shuttle");
    // Incremental builds are fast, because each fault changes only one line of sources that are
    // already built.
    cargo.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_DEV_DEBUG", "0");
    cargo
}

/// Returns a package's faults, and checks that each applies to the package's sources.
fn mutants(workspace: &Workspace, package: &str) -> Result<Vec<Mutant>> {
    let folder = folder(workspace, package)?;
    let file = folder.join(MUTANTS);
    let mutants = mutant::parse(&read(&file)?);
    let mutants = mutants.with_context(|| workspace.relative(&file).display().to_string())?;
    for mutant in &mutants {
        mutant.apply(&read(&folder.join(&mutant.file))?).with_context(|| mutant.name.clone())?;
    }
    Ok(mutants)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

fn folder<'a>(workspace: &'a Workspace, package: &str) -> Result<&'a Path> {
    let found = workspace.packages.iter().find(|candidate| candidate.name == package);
    found
        .map(|package| &*package.folder)
        .with_context(|| format!("the workspace has no package {package}"))
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in from.read_dir()? {
            let name = entry?.file_name();
            if name == "target" || name == "corpus" {
                continue;
            }
            copy_all(&from.join(&name), &to.join(&name))?;
        }
    } else {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Applies a fault to the copy, runs the checks that the fault names, and restores the copy.
/// Returns an error unless every one of the checks fails.
fn find_in(workspace: &Workspace, copy: &Sources, package: &str, mutant: &Mutant) -> Result<()> {
    let file = copy.root.join(workspace.relative(folder(workspace, package)?)).join(&mutant.file);
    let source = read(&file)?;
    fs::write(&file, mutant.apply(&source)?)?;
    let mut checks = checks(copy, package);
    checks.arg("--exact").args(mutant.checks.iter().map(|check| format!("interleavings::{check}")));
    let output = process::output(&mut checks);
    fs::write(&file, source)?;
    let output = output?;
    ensure!(!output.status.success(), "no check finds the fault");
    let printed = String::from_utf8_lossy(&output.stdout);
    if !printed.contains("test result: FAILED") {
        bail!(
            "the fault does not compile:\n{}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    for check in &mutant.checks {
        let failure = format!("test interleavings::{check} ... FAILED");
        ensure!(printed.lines().any(|line| line == failure), "{check} does not find the fault");
    }
    Ok(())
}
