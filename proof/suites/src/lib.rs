//! Acceptance suites: Doorbell against boards, QEMU, Linux and other projects. One program holds
//! them all, and the programs of `cargo xtask` that measure or show what a suite judges.
//!
//! `SUITE [PART]` runs the cases of a suite whose names contain `PART`, with libtest's options.
//! `run PROGRAM` runs a program.
#![forbid(unsafe_code)]

mod acpi;
mod arceos;
mod bindings;
mod boards;
mod deny;
mod differential;
mod direct_injection;
mod exhaustive;
mod fetched;
mod figures;
mod fuzz;
mod instructions;
mod interleavings;
mod kvm;
mod live;
mod machine;
mod msrv;
mod mutant;
mod newcomer;
mod page;
mod program;
mod qemu;
mod said;
mod size;
mod soak;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result};
use doorbell_harness::suite::{self, Case, Turns};

/// A suite: its name, the function that lists its cases, and how many of them run at a time.
type Suite = (&'static str, fn() -> Result<Vec<Case>>, Turns);

const SUITES: &[Suite] = &[
    ("acpi", || Ok(acpi::cases()), Turns::Parallel),
    ("arceos", || Ok(arceos::cases()), Turns::Single),
    ("bindings", bindings::cases, Turns::Parallel),
    ("boards", || Ok(boards::cases()), Turns::Parallel),
    ("deny", deny::cases, Turns::Parallel),
    ("differential", || Ok(differential::cases()), Turns::Parallel),
    ("direct-injection", || Ok(direct_injection::cases()), Turns::Parallel),
    ("exhaustive", || Ok(exhaustive::cases()), Turns::Parallel),
    ("exhaustive-faults", exhaustive::faults, Turns::Parallel),
    ("fuzz", fuzz::cases, Turns::Parallel),
    ("instructions", instructions::cases, Turns::Parallel),
    ("interleavings", || Ok(interleavings::cases()), Turns::Parallel),
    ("interleavings-faults", interleavings::faults, Turns::Parallel),
    ("kvm", || Ok(kvm::cases()), Turns::Parallel),
    ("live", || Ok(live::cases()), Turns::Parallel),
    ("machine", || Ok(machine::cases()), Turns::Single),
    ("msrv", msrv::cases, Turns::Parallel),
    ("newcomer", || Ok(newcomer::cases()), Turns::Parallel),
    ("page", || Ok(page::cases()), Turns::Single),
    ("qemu", || Ok(qemu::cases()), Turns::Parallel),
    ("size", || Ok(size::cases()), Turns::Parallel),
    ("soak", || Ok(soak::cases()), Turns::Single),
];

/// Runs a suite or a program, as the command line says.
pub fn main() -> ExitCode {
    let mut words: Vec<_> = env::args_os().collect();
    let outcome = match words.get(1).and_then(|word| word.to_str()) {
        Some("run") => program::run(words.into_iter().skip(1)),
        _ if words.len() < 2 => Ok(ExitCode::SUCCESS),
        _ => {
            let name = words.remove(1);
            let suite = SUITES.iter().find(|(known, ..)| name == *known);
            let suite = suite.with_context(|| format!("no suite {}", name.display()));
            suite.and_then(|(_, cases, turns)| Ok(suite::run(words, *turns, cases()?)))
        }
    };
    outcome.unwrap_or_else(|error| {
        let names: Vec<_> = SUITES.iter().map(|(name, ..)| *name).collect();
        eprintln!("error: {error:#}\nsuites: {}", names.join(" "));
        ExitCode::FAILURE
    })
}
