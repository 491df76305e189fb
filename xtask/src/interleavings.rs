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
use crate::{process, rust, tests};

/// Packages with such checks.
const CHECKED: &[&str] = &["irq-domain", "irq-routing", "vgic"];
/// A package's faults, below its folder.
const MUTANTS: &str = "src/interleavings/mutants.txt";
/// Parts of the repository that make up its workspace.
const COPIED: &[&str] = &["Cargo.toml", "Cargo.lock", "crates", "conformance", "xtask"];
/// Time after which a run, which may build everything, counts as hung.
const LIMIT: Duration = Duration::from_mins(20);

/// Runs every check, and every fault, each counted as one case.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    rust::need_component(&workspace.root, "clippy")?;
    for package in CHECKED {
        tally.case("clippy", process::must(&mut clippy(workspace, package)));
        let mut checks = checks(workspace, &workspace.root, package);
        checks.arg("interleavings::");
        let status = process::watch(&mut checks, LIMIT, |line| {
            println!("{line}");
            tests::count(line, tally);
        })?;
        if !status.success() {
            tally.fail(format!("{package}: the checks ended with {status}"));
            continue;
        }
        let copy = copy_of(workspace)?;
        for mutant in mutants(workspace, package)? {
            let name = format!("{package}: {}", mutant.name);
            println!("fault: {name}");
            tally.case(&name, find(workspace, &copy, package, &mutant));
        }
    }
    Ok(())
}

/// Clippy over a package's checks, which it does not see without the flag.
fn clippy(workspace: &Workspace, package: &str) -> Command {
    let mut cargo = cargo(workspace, &workspace.root, "clippy", package);
    cargo.args(["--tests", "--", "-D", "warnings"]);
    cargo
}

/// The command that runs checks of a package in `root`: those whose names are added.
fn checks(workspace: &Workspace, root: &Path, package: &str) -> Command {
    let mut cargo = cargo(workspace, root, "test", package);
    cargo.args(["--no-fail-fast", "--"]);
    cargo
}

/// A cargo command with the flag. Its artifacts have a folder of their own, as the flag makes all
/// of them differ.
fn cargo(workspace: &Workspace, root: &Path, subcommand: &str, package: &str) -> Command {
    let mut cargo = process::cargo(root);
    cargo.args([subcommand, "--package", package, "--lib", "--all-features", "--locked"]);
    cargo.arg("--target-dir").arg(workspace.target.join("shuttle"));
    cargo.env("RUSTFLAGS", "--cfg shuttle");
    cargo
}

fn mutants(workspace: &Workspace, package: &str) -> Result<Vec<Mutant>> {
    let file = folder(workspace, package)?.join(MUTANTS);
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    mutant::parse(&text).with_context(|| workspace.relative(&file).display().to_string())
}

fn folder<'a>(workspace: &'a Workspace, package: &str) -> Result<&'a Path> {
    let found = workspace.packages.iter().find(|candidate| candidate.name == package);
    found.map(|package| &*package.folder).with_context(|| format!("no package {package}"))
}

/// Copies the workspace's sources and returns the copy's root.
fn copy_of(workspace: &Workspace) -> Result<PathBuf> {
    let copy = workspace.target.join("mutants");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    fs::create_dir_all(&copy)?;
    for part in COPIED {
        copy_all(&workspace.root.join(part), &copy.join(part))?;
    }
    Ok(copy)
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if from.is_dir() {
        fs::create_dir_all(to)?;
        for entry in from.read_dir()? {
            let name = entry?.file_name();
            copy_all(&from.join(&name), &to.join(&name))?;
        }
    } else {
        fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    }
    Ok(())
}

/// Applies a fault to the copy, runs there the checks that the fault names, and restores the copy.
/// Fails unless every one of them fails.
fn find(workspace: &Workspace, copy: &Path, package: &str, mutant: &Mutant) -> Result<()> {
    let file = copy.join(workspace.relative(folder(workspace, package)?)).join(&mutant.file);
    let source =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    fs::write(&file, mutant.apply(&source)?)?;
    let mut checks = checks(workspace, copy, package);
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
