//! Explores every state of small machines (`proof/exhaustive`).
//!
//! The suite `exhaustive-faults` plants faults in the model that the exploration must find, and
//! faults in the guest, the generator and the reference of programs (`proof/support`) that these
//! cases or hand-typed tests must find. All faults are planted in one copy of the sources, which is
//! built once; environment variables select at most one fault of each package for a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use doorbell_harness::process;
use doorbell_harness::suite::{Case, Shared, is_long};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_test_support::suites::{SCOPE_MINUTES, SCOPES};

use crate::mutant::copy;
use crate::mutant::{self, Mutant};

/// The package of the exploration, whose folder lists the faults of the package `vgic`.
const PACKAGE: &str = "doorbell-exhaustive";
/// The package of the guest, the generator and the reference.
const SUPPORT: &str = "doorbell-test-support";
/// The page that states the numbers of states.
const PAGE: &str = "docs/status.md";
/// Folder of the artifacts, beside that of the copy.
const BUILD: &str = "exhaustive-build";

/// Returns a case for each scope.
pub(crate) fn cases() -> Vec<Case> {
    let explore =
        |scope: &'static &str| Case::of(*scope, || find_nothing(scope, Command::new(program()?)));
    SCOPES[usize::from(is_long())].iter().map(explore).collect()
}

/// Returns a case for each planted fault.
pub(crate) fn faults() -> Result<Vec<Case>> {
    let workspace = workspace::this()?;
    let found = faults_of(workspace, PACKAGE)?.into_iter().map(|(_, fault)| {
        let name = format!("finds a fault: {}", fault.name);
        Case::of(name, move || check(&fault.name, 0))
    });
    let proven = faults_of(workspace, SUPPORT)?.into_iter().map(|(number, fault)| {
        let name = format!("finds a fault of the proof: {}", fault.name);
        Case::of(name, move || {
            // A copy that cannot be built must not look like a fault that is found.
            built()?;
            for case in &fault.checks {
                ensure!(check(case, number).is_err(), "{case} does not find the fault");
            }
            Ok(())
        })
    });
    Ok(found.chain(proven).collect())
}

/// Builds the exploration without faults, and returns the program.
fn program() -> Result<&'static Path> {
    static BUILT: Shared<PathBuf> = Shared::new();
    let program = BUILT.get(|| {
        let workspace = workspace::this()?;
        let mut cargo = process::cargo(&workspace.root);
        process::must(cargo.args(["build", "--release", "--package", PACKAGE]))?;
        Ok(workspace.target.join("release").join(PACKAGE))
    });
    program.map(PathBuf::as_path)
}

/// Explores a scope, in which every result must be allowed, or a fault's scope, or runs a test of
/// [`SUPPORT`]. Selects that package's fault with this number, or none.
fn check(case: &str, support: usize) -> Result<()> {
    if SCOPES[0].contains(&case) {
        return find_nothing(case, exploration(0, support)?);
    }
    let faults = faults_of(workspace::this()?, PACKAGE)?;
    match faults.iter().find(|(_, fault)| fault.name == case) {
        Some((number, fault)) => find(*number, fault, support),
        None => test(case, support),
    }
}

/// Explores a scope. Returns an error unless every result is allowed, and the numbers of states are
/// those that [`PAGE`] states.
fn find_nothing(scope: &str, mut exploration: Command) -> Result<()> {
    let minutes = SCOPE_MINUTES[usize::from(is_long())].to_string();
    let output = process::output(exploration.args([scope, &minutes]))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    eprintln!("{scope}: {}", printed.trim_end());
    let page = fs::read_to_string(workspace::this()?.root.join(PAGE))?.replace(',', "");
    let row = page.lines().find(|line| line.starts_with(&format!("| `{scope}`")));
    let cells: Vec<_> =
        row.with_context(|| format!("{scope} is not in {PAGE}"))?.split(" | ").collect();
    let [.., models, pairs, depth] = *cells else { bail!("no numbers in the row of {scope}") };
    let is_stated = printed.starts_with(&format!("complete: {pairs} pairs of {models} states "))
        && printed.contains(&format!("up to {} steps deep;", depth.trim_end_matches(" |")));
    ensure!(output.status.success(), "{}", printed.trim_end());
    ensure!(is_stated || is_long(), "{PAGE} states other numbers: {}", printed.trim_end());
    Ok(())
}

/// Selects a fault of the model, and explores the scopes that the fault names. Returns an error
/// unless each exploration finds it, and when they replay the finding, exactly the named machines
/// with a CPU interface in software and at least one with list registers.
fn find(number: usize, fault: &Mutant, support: usize) -> Result<()> {
    for check in &fault.checks {
        let (scope, machines) = check.split_once(", ").unwrap_or((check, ""));
        let output = process::output(exploration(number, support)?.arg(scope))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let finding = printed.split_once("\nnot allowed: ").filter(|_| !output.status.success());
        let finding = finding.and_then(|(_, finding)| finding.split_once('\n'));
        let Some((_, program)) = finding else {
            bail!("{scope} does not find the fault: {}", printed.trim_end());
        };
        let file = workspace::this()?.target.join(format!("finding-{number}-{support}"));
        fs::write(&file, program)?;
        let mut replay = exploration(number, support)?;
        let replayed = process::output(replay.arg("replay").arg(file))?.stdout;
        let replayed = String::from_utf8(replayed)?;
        eprintln!("{}: {scope}\n{program}{replayed}", fault.name);
        let found = replayed.lines().filter_map(|line| line.strip_prefix("found by "));
        let names = found.filter_map(|line| line.split_once(':')?.0.split_once(" with "));
        let (software, others): (Vec<_>, Vec<_>) = names.partition(|(_, kind)| *kind == "software");
        let found: Vec<_> = software.iter().map(|(way, _)| *way).collect();
        ensure!(found.join(" ") == machines, "{program}{replayed}");
        ensure!(others.is_empty() == found.is_empty(), "{program}{replayed}");
    }
    Ok(())
}

/// Runs a test of [`SUPPORT`].
fn test(name: &str, support: usize) -> Result<()> {
    let mut cargo = cargo(built()?, "test");
    cargo.args(["--test", "guest", "--", "--exact", name]);
    let output = process::output(cargo.env(mutant::variable(SUPPORT), support.to_string()))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    ensure!(!printed.contains(&format!("test {name} ... FAILED")), "{}", printed.trim_end());
    Ok(())
}

/// Returns the command that explores a scope with these faults; callers append its name.
fn exploration(model: usize, support: usize) -> Result<Command> {
    let release = built()?.with_file_name(BUILD).join("release");
    let mut command = Command::new(release.join(PACKAGE));
    command.env(mutant::variable("vgic"), model.to_string());
    command.env(mutant::variable(SUPPORT), support.to_string());
    Ok(command)
}

/// Builds the exploration and the tests in a copy of the sources that has all faults, and returns
/// the copy's folder.
fn built() -> Result<&'static Path> {
    static BUILT: Shared<PathBuf> = Shared::new();
    let copy = BUILT.get(|| {
        let workspace = workspace::this()?;
        let faults = vec![
            ("vgic", faults_of(workspace, PACKAGE)?),
            (SUPPORT, faults_of(workspace, SUPPORT)?),
        ];
        let copy = copy::plant(workspace, "exhaustive", &faults)?;
        process::must(&mut cargo(&copy, "build"))?;
        process::must(cargo(&copy, "test").args(["--test", "guest", "--no-run"]))?;
        Ok(copy)
    });
    copy.map(PathBuf::as_path)
}

fn cargo(copy: &Path, subcommand: &str) -> Command {
    let mut cargo = process::cargo(copy);
    cargo.args([subcommand, "--release", "--offline", "--package", PACKAGE, "--package", SUPPORT]);
    cargo.args(["--features", "doorbell-test-support/guest"]);
    cargo.arg("--target-dir").arg(copy.with_file_name(BUILD));
    cargo
}

/// Returns the faults that a package's folder lists, numbered from 1.
fn faults_of(workspace: &Workspace, package: &str) -> Result<Vec<(usize, Mutant)>> {
    let file = copy::folder(workspace, package)?.join("mutants.txt");
    Ok((1..).zip(mutant::read(&file)?).collect())
}
