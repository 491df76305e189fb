//! Doorbell's model against QEMU's; see `docs/differential.md`.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use clap::Parser;
use conformance::differential::{
    Cpus, Family, Finding, Limits, MUTANTS, Model, Qemu, family, hunt, reset_values,
};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// A planted fault is found within so many cases.
const CASES_OF_A_HUNT: u32 = 2000;

/// Compares Doorbell's GICv3 and ITS with QEMU's.
#[derive(Debug, Parser)]
struct Args {
    /// qemu-system-aarch64
    #[arg(long)]
    qemu: PathBuf,
    /// Where its libraries are, if not where others are
    #[arg(long)]
    libraries: Option<PathBuf>,
    /// Cases of each family
    #[arg(long, default_value_t = 10_000)]
    cases: u32,
    /// Of all choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Plant faults as well, and find them
    #[arg(long)]
    plant: bool,
    /// Stop after about so many seconds
    #[arg(long)]
    seconds: Option<u64>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// How many comparisons differ, and planted faults are missed.
fn run(args: &Args) -> Result<usize> {
    let mut bad = 0;
    let mut stopped = Pair { model: Model::new()?, qemu: start_qemu(args, Cpus::Stopped)? };
    for finding in reset_values(&mut stopped.model, &mut stopped.qemu)? {
        bad += tell("registers after reset agree", &finding);
    }
    // Each family has an equal part of the time.
    let part = args
        .seconds
        .map(|seconds| Duration::from_secs(seconds) / u32::try_from(Family::ALL.len()).unwrap_or(1));
    let limits = || {
        let deadline = part.map(|part| Instant::now() + part);
        Limits { cases: args.cases, deadline, seed: args.seed }
    };
    for of in Family::ALL.into_iter().filter(|of| !of.needs_cpus()) {
        bad += stopped.compare(of, limits())?;
    }
    if args.plant {
        bad += stopped.hunt(args.seed, |of| of.is_none_or(|of| !of.needs_cpus()))?;
    }
    drop(stopped);
    let mut running = Pair { model: Model::with_cpus()?, qemu: start_qemu(args, Cpus::Acknowledge)? };
    for of in Family::ALL.into_iter().filter(|of| of.needs_cpus()) {
        bad += running.compare(of, limits())?;
    }
    if args.plant {
        bad += running.hunt(args.seed, |of| of.is_some_and(Family::needs_cpus))?;
    }
    Ok(bad)
}

fn start_qemu(args: &Args, cpus: Cpus) -> Result<Qemu> {
    let (libraries, folder) = (args.libraries.as_deref(), std::env::temp_dir());
    Qemu::start(&args.qemu, libraries, &folder, cpus).context("QEMU does not start")
}

/// The two machines.
struct Pair {
    model: Model,
    qemu: Qemu,
}

impl Pair {
    /// 1 if they differ.
    fn compare(&mut self, of: Family, limits: Limits) -> Result<usize> {
        let finding = family(of, limits, &mut self.model, &mut self.qemu)?;
        Ok(tell(&format!("cases agree: {}", of.name()), &finding))
    }

    /// Shows that the comparison finds faults, by planting some; how many it does not find.
    fn hunt(&mut self, seed: u64, wanted: impl Fn(Option<Family>) -> bool) -> Result<usize> {
        let limits = Limits { cases: CASES_OF_A_HUNT, deadline: None, seed };
        let mut missed = 0;
        for mutant in MUTANTS.iter().filter(|mutant| wanted(mutant.found_by)) {
            if hunt(mutant, limits, &mut self.qemu)?.is_some() {
                println!("ok - a planted fault is found: {}", mutant.name);
            } else {
                println!("not ok - a planted fault is not found: {}", mutant.name);
                missed += 1;
            }
        }
        Ok(missed)
    }
}

/// Prints a finding; 1 if it is a difference.
fn tell(name: &str, finding: &Finding) -> usize {
    match &finding.mismatch {
        None => {
            println!("ok - {} {name}", finding.agreed);
            0
        }
        Some(mismatch) => {
            println!("not ok - {name}, after {} that agree\n{mismatch}", finding.agreed);
            1
        }
    }
}
