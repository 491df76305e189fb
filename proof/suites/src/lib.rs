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
mod readme;
mod said;
mod size;
mod soak;

use std::env;
use std::process::ExitCode;

use anyhow::{Context, Result};
use doorbell_harness::suite::{self, Case};

/// A suite: its name, the function that lists its cases, and whether they run one at a time.
type Suite = (&'static str, fn() -> Result<Vec<Case>>, bool);

/// One case at a time, because the cases share a browser, or use all CPUs themselves.
const IN_TURN: bool = true;

const SUITES: &[Suite] = &[
    ("acpi", || Ok(acpi::cases()), !IN_TURN),
    ("arceos", || Ok(arceos::cases()), IN_TURN),
    ("bindings", bindings::cases, !IN_TURN),
    ("boards", || Ok(boards::cases()), !IN_TURN),
    ("deny", deny::cases, !IN_TURN),
    ("differential", || Ok(differential::cases()), !IN_TURN),
    ("direct-injection", || Ok(direct_injection::cases()), !IN_TURN),
    ("exhaustive", || Ok(exhaustive::cases()), !IN_TURN),
    ("exhaustive-faults", exhaustive::faults, !IN_TURN),
    ("fuzz", fuzz::cases, !IN_TURN),
    ("instructions", instructions::cases, !IN_TURN),
    ("interleavings", || Ok(interleavings::cases()), !IN_TURN),
    ("interleavings-faults", interleavings::faults, !IN_TURN),
    ("kvm", || Ok(kvm::cases()), !IN_TURN),
    ("live", || Ok(live::cases()), !IN_TURN),
    ("machine", || Ok(machine::cases()), IN_TURN),
    ("msrv", msrv::cases, !IN_TURN),
    ("newcomer", || Ok(newcomer::cases()), !IN_TURN),
    ("page", || Ok(page::cases()), IN_TURN),
    ("qemu", || Ok(qemu::cases()), !IN_TURN),
    ("size", || Ok(size::cases()), !IN_TURN),
    ("soak", || Ok(soak::cases()), IN_TURN),
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
            suite.and_then(|(_, cases, in_turn)| Ok(suite::run(words, *in_turn, cases()?)))
        }
    };
    outcome.unwrap_or_else(|error| {
        let names: Vec<_> = SUITES.iter().map(|(name, ..)| *name).collect();
        eprintln!("error: {error:#}\nsuites: {}", names.join(" "));
        ExitCode::FAILURE
    })
}
