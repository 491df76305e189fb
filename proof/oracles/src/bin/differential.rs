//! Doorbell's model against QEMU's; see `docs/differential.md`.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use clap::Parser;
use doorbell_oracles::differential::{
    Comparison, Finding, Limits, MUTANTS, Model, Peer as _, Qemu, World, compare, hunt,
    reset_values,
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
    /// Folder of its libraries, if not where others are
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

/// Runs the comparisons. Returns the number that differ, and of planted faults that are missed.
fn run(args: &Args) -> Result<usize> {
    let mut bad = 0;
    // Each comparison has an equal part of the time.
    let comparisons: usize = World::ALL.iter().map(|world| world.families().len()).sum();
    let comparisons = u32::try_from(comparisons).unwrap_or(u32::MAX);
    let part = args.seconds.map(|seconds| Duration::from_secs(seconds) / comparisons);
    for world in World::ALL {
        let mut pair = Pair::start(args, world)?;
        bad += pair.compare_after_reset()?;
        for family in world.families() {
            let deadline = part.map(|part| Instant::now() + part);
            let limits = Limits { cases: args.cases, deadline, seed: args.seed };
            bad += pair.compare(Comparison { family: *family, world }, limits)?;
        }
        if args.plant {
            bad += pair.hunt(world, args.seed)?;
        }
    }
    Ok(bad)
}

/// The two machines.
struct Pair {
    model: Model,
    qemu: Qemu,
}

impl Pair {
    fn start(args: &Args, world: World) -> Result<Self> {
        let (libraries, folder) = (args.libraries.as_deref(), std::env::temp_dir());
        let qemu =
            Qemu::start(&args.qemu, libraries, &folder, world).context("QEMU does not start")?;
        Ok(Self { model: Model::new(world, qemu.watch())?, qemu })
    }

    /// Returns the number of frames that differ.
    fn compare_after_reset(&mut self) -> Result<usize> {
        let findings = reset_values(&mut self.model, &mut self.qemu)?;
        Ok(findings.iter().map(|finding| tell("registers after reset agree", finding)).sum())
    }

    /// 1 if they differ.
    fn compare(&mut self, of: Comparison, limits: Limits) -> Result<usize> {
        let finding = compare(of, limits, &mut self.model, &mut self.qemu)?;
        Ok(tell(&format!("cases agree: {}; {}", of.family.name(), of.world.name()), &finding))
    }

    /// Shows that the comparison finds faults, by planting some; how many it does not find.
    fn hunt(&mut self, world: World, seed: u64) -> Result<usize> {
        let limits = Limits { cases: CASES_OF_A_HUNT, deadline: None, seed };
        let mut missed = 0;
        for mutant in MUTANTS.iter().filter(|mutant| mutant.world == world) {
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
