//! Delivers every device's message-signaled interrupts on the machine that a firmware description
//! describes, and shows where each one arrived.
#![forbid(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr)] // They panic on a closed pipe: see `print`.

mod asl;
mod bench;
mod cli;
mod compiler;
mod diff;
mod dts;
mod exit;
mod explain;
mod findings;
mod help;
mod inspect;
mod lint;
mod live;
mod machines;
mod manual;
mod print;
mod registers;
mod report;
mod run;
mod snapshot;
mod source;
mod table;
mod trace;
mod why;
mod wording;

use anyhow::Result;
use clap::Parser;
use cli::{Cli, Command};
use exit::Outcome;
use print::ColorWhen;
use std::env;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    ColorWhen::of_arguments(arguments()).choose();
    match Cli::try_parse_from(ColorWhen::in_subcommand(env::args_os()))
        .map_or_else(|said| show(&said), |cli| obey(cli.into_command()))
    {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            print::tell(format_args!("{error:#}"));
            Outcome::CouldNotRun.into()
        }
    }
}

/// Returns the arguments that are valid Unicode. All others are paths.
fn arguments() -> impl Iterator<Item = String> {
    env::args_os().skip(1).filter_map(|argument| argument.into_string().ok())
}

fn obey(command: Command) -> Result<Outcome> {
    match command {
        Command::Run(args) => run::run(&args.run, args.source.as_deref()),
        Command::Bench(args) => bench::bench(&args),
        Command::Machines(output) => machines::machines(&output),
        Command::Inspect(args) => inspect::inspect(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Graph(args) => inspect::graph(&args),
        Command::Report(args) => report::report(&args),
        Command::Lint(args) => lint::lint(&args),
        Command::Why(args) => why::why(&args),
        Command::Diff(args) => diff::diff(&args),
        Command::Snapshot(args) => snapshot::snapshot(&args),
        Command::Live(args) => live::live(&args),
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::page(&args),
    }
}

/// Prints the requested help, or explains what is wrong with the arguments.
fn show(said: &clap::Error) -> Result<Outcome> {
    if said.use_stderr() {
        // If the message can't be written, the exit status still reports the error.
        let _ = said.print();
        return Ok(Outcome::CouldNotRun);
    }
    let text = said.render();
    let styled = print::is_styled();
    print::text(|out| if styled { write!(out, "{}", text.ansi()) } else { write!(out, "{text}") })?;
    Ok(Outcome::Good)
}
