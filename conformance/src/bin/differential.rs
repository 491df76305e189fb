//! Doorbell's model against QEMU's; see `docs/differential.md`.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use clap::Parser;
use conformance::differential::{Family, Finding, Limits, MUTANTS, Model, Qemu, family, hunt, reset_values};
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

/// How many families differ.
fn run(args: &Args) -> Result<usize> {
    let start = Instant::now();
    let mut model = Model::new()?;
    let mut qemu = Qemu::start(&args.qemu, args.libraries.as_deref(), &std::env::temp_dir())
        .context("QEMU does not start")?;
    let mut differing = 0;
    for finding in reset_values(&mut model, &mut qemu)? {
        differing += tell("registers after reset agree", &finding);
    }
    for (part, of) in (1..).zip(Family::ALL) {
        let parts = Family::ALL.len() as u64;
        let deadline = args.seconds.map(|seconds| start + Duration::from_secs(seconds * part / parts));
        let limits = Limits { cases: args.cases, deadline, seed: args.seed };
        differing +=
            tell(&format!("cases agree: {}", of.name()), &family(of, limits, &mut model, &mut qemu)?);
    }
    Ok(differing + hunt_all(args.seed, &mut qemu)?)
}

/// Shows that the comparison finds faults, by planting some; how many it does not find.
fn hunt_all(seed: u64, qemu: &mut Qemu) -> Result<usize> {
    let limits = Limits { cases: CASES_OF_A_HUNT, deadline: None, seed };
    let mut missed = 0;
    for mutant in MUTANTS {
        if hunt(mutant, limits, qemu)?.is_some() {
            println!("ok - a planted fault is found: {}", mutant.name);
        } else {
            println!("not ok - a planted fault is not found: {}", mutant.name);
            missed += 1;
        }
    }
    Ok(missed)
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
