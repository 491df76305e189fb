//! Tasks implemented by other packages' programs. The programs receive the rest of the command
//! line.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::suites;
use crate::tally::Tally;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// A program that has the same name as its task.
struct Program {
    name: &'static str,
    /// Folder of its workspace, relative to the root.
    folder: &'static str,
    package: &'static str,
    about: &'static str,
}

const fn program(name: &'static str, about: &'static str) -> Program {
    Program { name, folder: "", package: suites::PACKAGE, about }
}

const PROGRAMS: &[Program] = &[
    program(
        "differential",
        "Compare the model with QEMU's GIC and ITS, for a chosen number of cases",
    ),
    program("figures", "Measure and write the figures of docs/measurements.md, on an idle machine"),
    program("findings", "Write the findings in Debian's devicetrees, for review before a commit"),
    Program {
        name: "hypervisor",
        folder: suites::EL2,
        package: suites::HYPERVISOR,
        about: "Run a guest on the hypervisor, with its console on this terminal",
    },
    program("kvm", "Let Linux's KVM for arm64 judge more of the model than the suite does"),
    program(
        "qemu",
        "Run the bare-metal test bench on one of QEMU's machines, and print its output",
    ),
];

/// Runs the program named by the first word, with the other words as its arguments.
pub(crate) fn run(workspace: &Workspace, words: &[OsString]) -> Result<ExitCode> {
    let (name, arguments) = words.split_first().context("no task is given")?;
    let program = PROGRAMS.iter().find(|program| program.name == name).with_context(|| {
        format!("unknown task `{}`; `cargo xtask help` lists the tasks", name.to_string_lossy())
    })?;
    let mut cargo = process::cargo(&workspace.root.join(program.folder));
    cargo.args(["run", "--quiet", "--package", program.package]);
    if program.folder.is_empty() {
        cargo.args(["--bin", program.name]);
    }
    let status = cargo.arg("--").args(arguments).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Measures and writes the figures, as a step.
pub(crate) fn figures(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let written = run(workspace, &["figures".into()])?;
    ensure!(written == ExitCode::SUCCESS, "the figures were not written");
    tally.pass(1);
    Ok(())
}

/// Formats descriptions of these tasks like clap's help.
pub(crate) fn help() -> String {
    PROGRAMS.iter().fold("Programs (each has its own --help):".into(), |mut text, program| {
        let _ = write!(text, "\n  {:13} {}", program.name, program.about);
        text
    })
}
