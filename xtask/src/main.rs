//! Doorbell's own tasks. `cargo xtask test` installs what it needs and checks everything; the other commands
//! run parts of it.
#![forbid(unsafe_code)]

mod lint;
mod process;
mod rust;
mod step;
mod tests;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// Doorbell's own tasks.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check everything, in order, and end with the count of what passed, failed and was skipped
    Test {
        /// Only this step (may be repeated)
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// Name the steps and leave
        #[arg(long)]
        list: bool,
    },
    /// Format the Rust sources
    Fmt,
    /// rustfmt's check, the house lints and clippy
    Lint,
    /// Build the documentation; warnings are errors
    Docs,
}

fn main() -> Result<ExitCode> {
    let task = Cli::parse().command;
    let workspace = Workspace::read()?;
    let steps = match &task {
        Task::Fmt => return rust::format(&workspace),
        Task::Test { list: true, .. } => {
            step::list();
            return Ok(ExitCode::SUCCESS);
        }
        Task::Test { only, .. } => step::chosen(only)?,
        Task::Lint => step::chosen(&["format", "lint", "clippy"])?,
        Task::Docs => step::chosen(&["docs"])?,
    };
    Ok(step::run(&workspace, &steps))
}
