//! Explores every state of small machines (`proof/exhaustive`), and plants faults in the model that
//! the exploration must find.
//!
//! All faults are planted in one copy of the sources, which is built once; an environment variable
//! selects one of them for a run, or none.

#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use doorbell_harness::process;
use doorbell_harness::suite::{self, Case, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_suites::mutant::copy;
use doorbell_suites::mutant::{self, Mutant};

/// The package of the exploration.
const PACKAGE: &str = "doorbell-exhaustive";
/// The scopes, ordered so that no CPU is idle at the end.
const SCOPES: [&str; 3] = ["direct-lpis", "two-events", "one-event"];
/// The scopes of a long run.
const LONG_SCOPES: [&str; 1] = ["two-masked-events"];
/// Environment variable that selects a planted fault by its number.
const SELECTOR: &str = "DOORBELL_FAULT";
/// Number of machines that a finding must show the fault on.
const REPLAYS: usize = 2;
/// A fault that shows only on a machine that had the LPI pending without an event before. The
/// exploration reuses its machine, and a finding does not contain its earlier states.
const NEEDS_HISTORY: &str = "DISCARD leaves the LPI pending at the redistributor";
/// Time after which a run counts as hung. The first one builds everything.
const LIMIT: Duration = Duration::from_mins(20);
const LONG_LIMIT: Duration = Duration::from_hours(2);
/// Minutes after which an exploration stops and prints its frontier.
const MINUTES: &str = "15";
const LONG_MINUTES: &str = "110";

fn main() -> Result<ExitCode> {
    let (scopes, limit): (&[&str], _) =
        if suite::is_long() { (&LONG_SCOPES, LONG_LIMIT) } else { (&SCOPES, LIMIT) };
    let complete = scopes.iter().map(|scope| Case::new(*scope, limit, move || find_nothing(scope)));
    let faults = faults(workspace::this()?)?.into_iter().filter(|_| !suite::is_long());
    let found = faults.map(|(number, fault)| {
        let name = format!("finds a fault: {}", fault.name);
        Case::new(name, LIMIT, move || find(number, &fault))
    });
    Ok(suite::main(complete.chain(found).collect()))
}

/// Explores a scope, in which every result must be allowed.
fn find_nothing(scope: &str) -> Result<()> {
    let minutes = if suite::is_long() { LONG_MINUTES } else { MINUTES };
    let output = process::output(exploration()?.args([scope, minutes]))?;
    let printed = String::from_utf8_lossy(&output.stdout);
    eprintln!("{scope}: {}", printed.trim_end());
    ensure!(output.status.success(), "{}", printed.trim_end());
    Ok(())
}

/// Selects a fault, and explores the scopes that the fault names. Returns an error unless each
/// exploration finds it, and at least [`REPLAYS`] machines that replay the finding.
fn find(number: usize, fault: &Mutant) -> Result<()> {
    for scope in &fault.checks {
        let output = process::output(exploration()?.env(SELECTOR, number.to_string()).arg(scope))?;
        let printed = String::from_utf8_lossy(&output.stdout);
        let finding = printed.split_once("\nnot allowed: ").filter(|_| !output.status.success());
        let finding = finding.and_then(|(_, finding)| finding.split_once('\n'));
        let Some((_, program)) = finding else {
            bail!("{scope} does not find the fault: {}", printed.trim_end());
        };
        let file = workspace::this()?.target.join(format!("finding-{number}"));
        std::fs::write(&file, program)?;
        let mut replay = exploration()?;
        replay.env(SELECTOR, number.to_string()).arg("replay").arg(file);
        let replayed = String::from_utf8(process::output(&mut replay)?.stdout)?;
        eprintln!("{}: {scope}\n{program}{replayed}", fault.name);
        let is_replayed = replayed.matches("found by").count() >= REPLAYS;
        ensure!(is_replayed || fault.name == NEEDS_HISTORY, "{program}{replayed}");
    }
    Ok(())
}

/// Returns the command that explores a scope; callers append its name.
fn exploration() -> Result<Command> {
    static BUILT: Shared<PathBuf> = Shared::new();
    Ok(Command::new(BUILT.get(|| build(workspace::this()?))?))
}

/// Builds the exploration in a copy of the sources that has all faults.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let faults = vec![("vgic", faults(workspace)?)];
    let copy = copy::plant(workspace, "exhaustive", &faults, SELECTOR)?;
    let target = workspace.target.join("exhaustive-build");
    let mut cargo = process::cargo(&copy);
    cargo.args(["build", "--release", "--offline", "--package", PACKAGE]);
    process::must(cargo.arg("--target-dir").arg(&target))?;
    Ok(target.join("release").join(PACKAGE))
}

/// Returns the faults in the package `vgic`, numbered from 1.
fn faults(workspace: &Workspace) -> Result<Vec<(usize, Mutant)>> {
    let file = copy::folder(workspace, PACKAGE)?.join("mutants.txt");
    Ok((1..).zip(mutant::read(&file)?).collect())
}
