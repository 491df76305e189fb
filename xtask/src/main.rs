//! Doorbell's own tasks. `cargo xtask test` installs what it needs and checks everything; the other
//! commands run parts of it.
#![forbid(unsafe_code)]

mod acpi;
mod adopters;
mod api;
mod boards;
mod changes;
mod check;
mod deny;
mod differential;
mod examples;
mod figures;
mod fuzz;
mod hypervisor;
mod interleavings;
mod language;
mod lint;
mod machine;
mod msrv;
mod newcomer;
mod package;
mod parallel;
mod report;
mod rust;
mod size;
mod step;
mod suites;
mod tests;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use doorbell_harness::{apt, cache, dtb, initramfs, process, qemu, small_linux, workspace};

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
        /// Also what takes hours, or an idle machine
        #[arg(long, conflicts_with = "only")]
        long: bool,
        /// Name the steps and leave
        #[arg(long)]
        list: bool,
    },
    /// Check what changed: format, house lints, then clippy and the tests of the packages that
    /// changed and of their direct dependents
    Check(check::Wanted),
    /// Format the Rust sources
    Fmt,
    /// rustfmt's check, the house lints and clippy
    Lint,
    /// Measure the language: commits, lines, names, circles between files
    Language {
        /// Count commits from this revision on; all by default
        #[arg(long, value_name = "REVISION")]
        since: Option<String>,
    },
    /// Build the documentation; warnings are errors
    Docs,
    /// Run a fuzz target, or all, and keep what it finds in proof/fuzz/artifacts
    Fuzz {
        /// A file in proof/fuzz/fuzz_targets
        target: Option<String>,
        /// For how long, each
        #[arg(long, default_value_t = 600)]
        seconds: u64,
    },
    /// Compare the model with QEMU's GIC and ITS for as long as wanted
    Differential(differential::Wanted),
    /// Have Linux's KVM for arm64, nested in QEMU, judge more of the model than the test does
    #[command(disable_help_flag = true)]
    Kvm(Forwarded),
    /// Run a guest on the hypervisor, on this terminal
    Hypervisor(hypervisor::Wanted),
    /// Run the bare-metal test bench on one of QEMU's machines, and watch
    #[command(disable_help_flag = true)]
    Qemu(Forwarded),
    /// Measure, and write the figures of docs/measurements.md; on a machine that is idle
    Figures,
    /// Write the findings in Debian's devicetrees anew, to be read before they are committed
    Findings,
    /// Write the lists of the libraries' interfaces anew, to be read before they are committed
    Api,
    /// Rehearse the upload of all packages to the registry
    Publish,
    /// Fetch QEMU and real devicetrees into the cache, and say where they are
    Fetch,
}

/// Arguments of a program of the suites.
#[derive(Debug, clap::Args)]
struct Forwarded {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
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
        Task::Fuzz { target, seconds } => {
            return fuzz::run_alone(&workspace, target.as_deref(), *seconds);
        }
        Task::Differential(wanted) => return differential::run_alone(&workspace, wanted),
        Task::Kvm(forwarded) => return suites::forward(&workspace, "kvm", &forwarded.arguments),
        Task::Hypervisor(wanted) => return hypervisor::run_alone(&workspace, wanted),
        Task::Qemu(forwarded) => return suites::forward(&workspace, "qemu", &forwarded.arguments),
        Task::Findings => return boards::findings::accept(&workspace),
        Task::Api => return api::accept(&workspace),
        Task::Publish => return package::rehearse(&workspace),
        Task::Fetch => return Ok(fetch(&workspace)),
        Task::Language { since } => {
            return language::run(&workspace, since.as_deref());
        }
        Task::Test { list: true, .. } => {
            step::list();
            return Ok(ExitCode::SUCCESS);
        }
        Task::Test { only, long, .. } if only.is_empty() => step::all(*long),
        Task::Test { only, .. } => step::chosen(only)?,
        Task::Lint => step::chosen(&["format", "lint", "clippy"])?,
        Task::Docs => step::chosen(&["docs"])?,
        Task::Figures => step::chosen(&["figures"])?,
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
