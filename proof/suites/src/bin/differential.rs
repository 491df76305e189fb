//! Compares the model with QEMU's GIC and ITS for a chosen number of cases; see
//! `docs/differential.md`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use doorbell_harness::suite;
use doorbell_suites::differential::{self, Effort, LONG_CASES};

/// Compares the model with QEMU's GIC and ITS, and plants faults that the comparison must find
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of cases of each family
    #[arg(long, default_value_t = LONG_CASES)]
    cases: u32,
    /// Seed of all random choices
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let Arguments { cases, seed } = Arguments::parse();
    suite::run_all(differential::cases(Effort::long(cases, seed)))
}
