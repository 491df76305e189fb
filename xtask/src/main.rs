//! Doorbell's own tasks. `cargo xtask test` installs what it needs, and `cargo xtask test --all`
//! checks everything; the other commands run parts of it.
#![forbid(unsafe_code)]

mod ahead;
mod check;
mod counted;
mod forwarded;
mod lint;
mod package;
mod programs;
mod rust;
mod step;
mod suites;
mod tally;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use doorbell_harness::dtb;
use doorbell_harness::workspace::Workspace;

use self::step::Tier;

/// Doorbell's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", after_help = forwarded::help())]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run the most important checks, within minutes, and print the number of passed, failed and
    /// skipped cases
    Test {
        /// Run only this step (may be repeated)
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// Also run everything else that has found a fault, as CI does
        #[arg(long, conflicts_with = "only")]
        all: bool,
        /// Also run the steps that take hours or need an idle machine
        #[arg(long, conflicts_with = "only")]
        long: bool,
        /// List the steps
        #[arg(long)]
        list: bool,
    },
    /// Check the changes: format, house lints, then clippy and the tests of the changed packages
    /// and of their direct dependents
    Check(check::Wanted),
    /// Format the Rust sources
    Fmt,
    /// Run rustfmt's check, the house lints and clippy
    Lint,
    /// Build the documentation; warnings are errors
    Docs,
    /// Print the lines of code of each part, and their sum beside the limit in .ci/lines
    Lines,
    /// Rehearse the upload of all packages to the registry
    Publish,
    /// Fetch QEMU and real devicetrees into the cache, and print their folders
    Fetch,
    /// Run a program of another package
    #[command(external_subcommand)]
    Program(Vec<OsString>),
}

fn main() -> ExitCode {
    run(&Cli::parse().command).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(task: &Task) -> Result<ExitCode> {
    let workspace = Workspace::read()?;
    let steps = match task {
        Task::Fmt => return rust::format(&workspace),
        Task::Check(wanted) => return check::run(&workspace, wanted),
        Task::Lines => return lint::lines::print(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Publish => return package::rehearse(&workspace),
        Task::Fetch => return Ok(fetch(&workspace)),
        Task::Program(words) => return forwarded::run(&workspace, words),
        Task::Test { list: true, .. } => {
            step::list();
            return Ok(ExitCode::SUCCESS);
        }
        Task::Test { only, all, long, .. } if only.is_empty() => {
            let tier = if *long {
                Tier::Long
            } else if *all {
                Tier::All
            } else {
                Tier::First
            };
            let steps = step::of_tier(tier);
            return Ok(ahead::beside(&workspace, tier, || step::run(&workspace, &steps)));
        }
        Task::Test { only, .. } => step::chosen(only)?,
        Task::Lint => step::chosen(&["format", "lint", "clippy"])?,
        Task::Docs => step::chosen(&["docs"])?,
    };
    Ok(step::run(&workspace, &steps))
}

fn fetch(workspace: &Workspace) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (tree, outcome) in dtb::fetch(workspace) {
        match outcome {
            Ok(()) => println!("{}", tree.folder(workspace).display()),
            Err(error) => {
                eprintln!("{}: {error:#}", tree.name());
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
