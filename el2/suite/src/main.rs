//! Runs a guest on the hypervisor, on this terminal.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use hypervisor_suite::interactive::{self, Wanted};

/// Runs a guest on the hypervisor, on this terminal.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask hypervisor", bin_name = "cargo xtask hypervisor")]
struct Cli {
    #[command(flatten)]
    wanted: Wanted,
}

fn main() -> ExitCode {
    interactive::run(&Cli::parse().wanted).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}
