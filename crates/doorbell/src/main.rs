//! Delivers every device's message-signalled interrupts on the machine that a firmware description describes, and
//! shows where each went.
#![forbid(unsafe_code)]

mod bench;
mod cli;
mod exit;
mod inspect;
mod machines;
mod matrix;
mod print;
mod qtest;
mod run;
mod source;

use clap::Parser;
use cli::{Cli, Command};
use exit::Outcome;
use std::process::ExitCode;

fn main() -> ExitCode {
    let result = match Cli::parse().into_command() {
        Command::Run(args) => run::run(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Machines(output) => machines::machines(&output),
        Command::Matrix(output) => matrix::matrix(&output),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Qtest(args) => qtest::qtest(&args),
    };
    match result {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("doorbell: {error:#}");
            Outcome::CouldNotRun.into()
        }
    }
}
