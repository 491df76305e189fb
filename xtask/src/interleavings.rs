//! Checks of lock-free code under a scheduler that explores interleavings (`--cfg shuttle`), and
//! faults in that code which the checks must find.
//!
//! A package's checks are the unit tests of its module `interleavings`. Its faults are in
//! `src/interleavings/mutants.txt`; each is applied to a copy of the sources.

mod mutant;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use self::mutant::Mutant;
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{parallel, process, tests};
use doorbell_harness::toolchain;

/// Packages with such checks.
const CHECKED: &[&str] = &["irq-domain", "irq-routing", "vgic"];
/// A package's faults, below its folder.
const MUTANTS: &str = "src/interleavings/mutants.txt";
/// Parts of the repository that make up its workspace.
const COPIED: &[&str] = &["Cargo.toml", "Cargo.lock", "crates", "proof", "sim", "xtask"];
/// Time after which a run, which may build everything, counts as hung.
const LIMIT: Duration = Duration::from_mins(20);

/// Runs every check, and so many faults that each check that can find one has failed once.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    judge(workspace, mutant::covering, tally)
}

/// Runs every check, and every fault.
pub(crate) fn run_long(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    judge(workspace, |faults| faults, tally)
}

/// Runs every check, and those faults that are `chosen`, each counted as one case.
fn judge(
    workspace: &Workspace,
    chosen: fn(Vec<Mutant>) -> Vec<Mutant>,
    tally: &mut Tally,
) -> Result<()> {
    toolchain::need_component(&workspace.root, "clippy")?;
    let here = Sources::own(workspace);
    let mut faults = Vec::new();
    for package in CHECKED {
        tally.case("clippy", process::must(&mut clippy(&here, package)));
        let mut checks = checks(&here, package);
        checks.arg("interleavings::");
        let status = process::watch(&mut checks, LIMIT, |line| {
            println!("{line}");
            tests::count(line, tally);
        })?;
        if status.success() {
            let mutants = chosen(mutants(workspace, package)?);
            faults.extend(mutants.into_iter().map(|mutant| (*package, mutant)));
        } else {
            tally.fail(format!("{package}: the checks ended with {status}"));
        }
    }
    let copies: Vec<_> = (0..parallel::workers())
        .map(|worker| here.copied(workspace, worker))
        .collect::<Result<_>>()?;
    let outcomes = parallel::on_each_cpu(&faults, |worker, (package, mutant)| {
        println!("fault: {package}: {}", mutant.name);
        find(workspace, &copies[worker], package, mutant)
    });
    for ((package, mutant), outcome) in faults.iter().zip(outcomes) {
        tally.case(&format!("{package}: {}", mutant.name), outcome);
    }
    Ok(())
}

/// The workspace's sources, or a copy of them, and the folder of what is built from them: the flag
/// makes all artifacts differ from others.
struct Sources {
    root: PathBuf,
    artifacts: PathBuf,
}

impl Sources {
    fn own(workspace: &Workspace) -> Self {
        Self { root: workspace.root.clone(), artifacts: workspace.target.join("shuttle") }
    }

    /// A copy for one worker, with artifacts of its own, so that no worker waits for another's
    /// compiler. It begins with these artifacts, of which those of the registry's packages are
    /// fresh for it.
    fn copied(&self, workspace: &Workspace, worker: usize) -> Result<Self> {
        let folder = workspace.target.join(format!("mutants-{worker}"));
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let (root, artifacts) = (folder.join("sources"), folder.join("target"));
        fs::create_dir_all(&root)?;
        for part in COPIED {
            copy_all(&workspace.root.join(part), &root.join(part))?;
        }
        let built = artifacts.join("debug");
        fs::create_dir_all(&built)?;
        for part in [".fingerprint", "build", "deps"] {
            // With their times, by which cargo knows what is fresh.
            let mut copy = process::command("cp", &self.artifacts.join("debug"));
            process::must(copy.arg("--archive").arg(part).arg(&built))?;
        }
        Ok(Self { root, artifacts })
    }
}

/// Clippy over a package's checks, which it does not see without the flag.
fn clippy(sources: &Sources, package: &str) -> Command {
    let mut cargo = cargo(sources, "clippy", package);
    cargo.args(["--tests", "--", "-D", "warnings"]);
    cargo
}

/// The command that runs checks of a package: those whose names are added.
fn checks(sources: &Sources, package: &str) -> Command {
    let mut cargo = cargo(sources, "test", package);
    cargo.args(["--no-fail-fast", "--"]);
    cargo
}

/// A cargo command with the flag.
fn cargo(sources: &Sources, subcommand: &str, package: &str) -> Command {
    let mut cargo = process::cargo(&sources.root);
    cargo.args([subcommand, "--package", package, "--lib", "--all-features", "--locked"]);
    cargo.arg("--target-dir").arg(&sources.artifacts);
    cargo.env("RUSTFLAGS", "--cfg shuttle");
    // Each fault is a line of what is built already.
    cargo.env("CARGO_INCREMENTAL", "1");
    cargo
}

/// A package's faults, each of which applies to its sources.
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
    found.map(|package| &*package.folder).with_context(|| format!("no package {package}"))
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

/// Applies a fault to the copy, runs there the checks that the fault names, and restores the copy.
/// Fails unless every one of them fails.
fn find(workspace: &Workspace, copy: &Sources, package: &str, mutant: &Mutant) -> Result<()> {
    let file = copy.root.join(workspace.relative(folder(workspace, package)?)).join(&mutant.file);
    let source = read(&file)?;
    fs::write(&file, mutant.apply(&source)?)?;
    let mut checks = checks(copy, package);
    checks.arg("--exact").args(mutant.checks.iter().map(|check| format!("interleavings::{check}")));
    let output = process::output(&mut checks);
    fs::write(&file, source)?;
    let output = output?;
    ensure!(!output.status.success(), "no check finds it");
    let printed = String::from_utf8_lossy(&output.stdout);
    if !printed.contains("test result: FAILED") {
        bail!("it does not compile:\n{}", String::from_utf8_lossy(&output.stderr).trim_end());
    }
    for check in &mutant.checks {
        let failure = format!("test interleavings::{check} ... FAILED");
        ensure!(printed.lines().any(|line| line == failure), "{check} does not find it");
    }
    Ok(())
}
