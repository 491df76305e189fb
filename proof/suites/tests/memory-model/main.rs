//! Judges the lock-free cores' compiled code by Arm's memory model, and runs the small cores' tests
//! in Miri.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use doorbell_harness::suite::{self, Absent, Case, OrAbsent, Shared};
use doorbell_harness::{process, workspace};
use doorbell_memory_model::assembly::Assembly;
use doorbell_memory_model::case::Case as Litmus;
use doorbell_memory_model::compile::{self, Target};
use doorbell_memory_model::herd::{self, Herd, Verdict};
use doorbell_memory_model::{VERDICTS, catalog};

/// Time limit of a case. The first cases compile the cores.
const LIMIT: Duration = Duration::from_mins(20);
/// Time limit of a long case, which judges each ordering of a test weakened by one step.
const LONG_LIMIT: Duration = Duration::from_hours(2);
/// Maximum processor time for one litmus test.
const LITMUS_LIMIT: Duration = Duration::from_mins(1);
/// Maximum processor time for one litmus test in the long run.
const LONG_LITMUS_LIMIT: Duration = Duration::from_mins(15);
/// Tests that run in Miri: those of the files that contain `unsafe`, and those with threads.
const MIRI: &[Tests] = &[
    Tests {
        package: "doorbell-fallible",
        target: &["--lib"],
        names: &["heap::", "lock::", "shared::"],
    },
    Tests {
        package: "irq-domain",
        target: &["--test", "it"],
        names: &["dispatch::", "handle::", "concurrent_requests_", "adding_and_removing_handlers"],
    },
    Tests { package: "irq-routing", target: &["--test", "it"], names: &["concurrent_masks_hold"] },
];

/// Tests of a package, selected by substrings of their names.
struct Tests {
    package: &'static str,
    target: &'static [&'static str],
    names: &'static [&'static str],
}

fn main() -> ExitCode {
    let mut cases = Vec::new();
    for test in catalog::cases() {
        let slow = if suite::is_long() { test.slow } else { &[] };
        for &target in test.quick.iter().chain(slow) {
            let name = format!("{}: {}", test.name, target.name());
            cases.push(Case::new(name, LIMIT, move || judge(test, target)));
        }
        let is_recorded = |target: &&Target| VERDICTS.contains(&prefix(test, **target));
        let targets = test.quick.iter().chain(slow.iter().filter(is_recorded));
        for &target in targets.filter(|_| suite::is_long()) {
            let name = format!("{}: {}: weakened", test.name, target.name());
            cases.push(Case::new(name, LONG_LIMIT, move || weaken(test, target)));
        }
    }
    if suite::is_long() {
        cases.extend(MIRI.iter().map(|tests| {
            Case::new(format!("{}: Miri", tests.package), LONG_LIMIT, || tests.run_in_miri())
        }));
    }
    suite::main(cases)
}

/// Returns how the lines of the verdicts on a test with weaker orderings begin.
fn prefix(test: &Litmus, target: Target) -> String {
    format!("{} {} ", test.name, target.name())
}

fn simulator() -> Result<&'static Herd> {
    static HERD: Shared<Herd> = Shared::new();
    let limit = if suite::is_long() { LONG_LITMUS_LIMIT } else { LITMUS_LIMIT };
    HERD.get(|| herd::fetch(workspace::this()?, limit).or_absent("herd7"))
}

/// Calls `work` with the code of a package, which is compiled once for each target. Two targets are
/// compiled at the same time.
fn with_assembly<T>(
    package: &'static str,
    target: Target,
    work: impl FnOnce(&Assembly) -> Result<T>,
) -> Result<T> {
    type Compiled = BTreeMap<&'static str, Assembly>;
    static COMPILED: [Mutex<Compiled>; 3] = [const { Mutex::new(BTreeMap::new()) }; 3];
    let compiled = &COMPILED[target as usize];
    let mut compiled = compiled.lock().unwrap_or_else(PoisonError::into_inner);
    match compiled.entry(package) {
        Entry::Occupied(assembly) => work(assembly.get()),
        Entry::Vacant(vacant) => {
            work(vacant.insert(compile::assembly(workspace::this()?, package, target)?))
        }
    }
}

/// Checks that the forbidden outcome never happens, and that the possible one can.
fn judge(test: &'static Litmus, target: Target) -> Result<()> {
    let herd = simulator()?;
    let translated = with_assembly(test.package, target, |code| test.translate(code, target))?;
    let name = format!("{}-{}", test.name, target.name());
    let verdict = run(herd, &translated.forbidden(None)?, &name)?;
    ensure!(verdict == Verdict::Never, "the outcome can happen: {}", test.forbidden);
    let verdict = run(herd, &translated.possible()?, &format!("{name}-possible"))?;
    ensure!(verdict == Verdict::Sometimes, "the outcome cannot happen: {}", test.possible);
    Ok(())
}

/// Checks the verdicts on the test with each ordering weakened by one step.
fn weaken(test: &'static Litmus, target: Target) -> Result<()> {
    let herd = simulator()?;
    let translated = with_assembly(test.package, target, |code| test.translate(code, target))?;
    let mut found = Vec::new();
    for (number, weakening) in translated.weakenings().iter().enumerate() {
        let name = format!("{}-{}-weakened-{number}", test.name, target.name());
        let verdict = run(herd, &translated.forbidden(Some(weakening))?, &name)?;
        found.push(format!("{} {} {weakening} {verdict:?}", test.name, target.name()));
    }
    let prefix = prefix(test, target);
    let expected: Vec<_> = VERDICTS.lines().filter(|line| line.starts_with(&prefix)).collect();
    ensure!(found == expected, "the verdicts have changed; found:\n{}", found.join("\n"));
    Ok(())
}

/// Judges a litmus test. Cases whose tests are the same, such as those of targets for which the
/// compiler emits the same code, share the verdict.
fn run(herd: &Herd, test: &str, name: &str) -> Result<Verdict> {
    type Known = BTreeMap<String, Arc<Shared<Verdict>>>;
    static KNOWN: Mutex<Known> = Mutex::new(BTreeMap::new());
    let verdict = {
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(known.entry(test.to_owned()).or_default())
    };
    let judged = verdict.get(|| {
        let folder = workspace::this()?.target.join("memory-model/litmus");
        fs::create_dir_all(&folder)?;
        herd.judge(test, &folder, name)
    });
    judged.copied()
}

impl Tests {
    fn run_in_miri(&self) -> Result<()> {
        let workspace = workspace::this()?;
        let probe = process::output(process::command("cargo", &workspace.root).args(MIRI_VERSION))?;
        if !probe.status.success() {
            return Err(Absent::new("no nightly toolchain has Miri").into());
        }
        let mut cargo = process::command("cargo", &workspace.root);
        // Tests of temporary files and of the clock need the host.
        cargo.env("MIRIFLAGS", "-Zmiri-disable-isolation");
        cargo.args(["+nightly", "miri", "test", "--package", self.package, "--target-dir"]);
        cargo.arg(workspace.target.join("miri")).args(self.target).arg("--").args(self.names);
        let mut passed = 0;
        let status = process::watch(&mut cargo, LONG_LIMIT, |line| {
            eprintln!("{line}");
            passed += u32::from(line.starts_with("test ") && line.ends_with("... ok"));
        })?;
        ensure!(status.success(), "Miri ended with {status}");
        // Filters that match nothing would pass.
        ensure!(passed > 0, "no test has one of these names");
        Ok(())
    }
}

const MIRI_VERSION: [&str; 3] = ["+nightly", "miri", "--version"];
