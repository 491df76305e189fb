//! Doorbell's own tasks. `cargo xtask test` installs what it needs and checks everything; the other
//! commands run parts of it.
#![forbid(unsafe_code)]

mod acpi;
mod adopters;
mod api;
mod boards;
mod check;
mod differential;
mod figures;
mod kvm;
mod lint;
mod machine;
mod newcomer;
mod package;
mod parallel;
mod programs;
mod qemu;
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
use doorbell_harness::{apt, cache, dtb, initramfs, process, small_linux, workspace};

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
    /// Build the documentation; warnings are errors
    Docs,
    /// Compare the model with QEMU's GIC and ITS for as long as wanted
    Differential(differential::Wanted),
    /// Have Linux's KVM for arm64, nested in QEMU, judge more of the model than the test does
    Kvm(kvm::Wanted),
    /// Run a guest on the hypervisor, on this terminal
    #[command(disable_help_flag = true)]
    Hypervisor {
        /// `--help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Run the bare-metal test bench on one of QEMU's machines, and watch
    Qemu(qemu::Watch),
    /// Measure, and write the figures of docs/measurements.md; on a machine that is idle
    Figures,
    /// Write the findings in Debian's devicetrees anew, to be read before they are committed
    Findings,
    /// Write the lists of the libraries' interfaces anew, to be read before they are committed
    Api,
    /// Record the lines of code of each package in docs/architecture.md
    Lines,
    /// Rehearse the upload of all packages to the registry
    Publish,
    /// Fetch QEMU and real devicetrees into the cache, and say where they are
    Fetch,
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
        Task::Differential(wanted) => return differential::run_alone(&workspace, wanted),
        Task::Kvm(wanted) => return kvm::run_alone(&workspace, wanted),
        Task::Hypervisor { arguments } => return suites::run_guest(&workspace, arguments),
        Task::Qemu(wanted) => return qemu::watch(&workspace, wanted),
        Task::Findings => return boards::findings::accept(&workspace),
        Task::Lines => return lint::lines::accept(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Api => return api::accept(&workspace),
        Task::Publish => return package::rehearse(&workspace),
        Task::Fetch => return Ok(fetch(&workspace)),
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
