//! Tasks implemented by other packages' programs. The programs receive the rest of the command
//! line.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::tally::Tally;
use crate::{programs, suites};
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// Programs that have the same names as their tasks, with descriptions. [`HYPERVISOR`] belongs to
/// the hypervisor's suite, and the others to the suites' package.
const PROGRAMS: &[(&str, &str)] = &[
    ("differential", "Compare the model with QEMU's GIC and ITS, for a chosen number of cases"),
    ("figures", "Measure and write the figures of docs/measurements.md, on an idle machine"),
    ("findings", "Write the findings in Debian's devicetrees, for review before a commit"),
    (HYPERVISOR, "Run a guest on the hypervisor, with its console on this terminal"),
    ("instructions", "Count instructions of the hot paths, and write them in docs/measurements.md"),
    ("kvm", "Let Linux's KVM for arm64 judge more of the model than the suite does"),
    ("page", "Build target/doorbell.html, which inspects firmware in a browser, without a network"),
    ("qemu", "Run the bare-metal test bench on one of QEMU's machines, and print its output"),
    ("soak", "Run random programs on real threads against the model, for a number of messages"),
];
const HYPERVISOR: &str = "hypervisor";

/// Runs the program named by the first word, with the other words as its arguments.
pub(crate) fn run(workspace: &Workspace, words: &[OsString]) -> Result<ExitCode> {
    let (name, arguments) = words.split_first().context("no task is given")?;
    let (program, _) = PROGRAMS.iter().find(|(program, _)| program == name).with_context(|| {
        format!("unknown task `{}`; `cargo xtask help` lists the tasks", name.to_string_lossy())
    })?;
    let mut command = if *program == HYPERVISOR {
        let mut cargo = process::cargo(&workspace.root);
        cargo.args(["run", "--quiet", "--package", "hypervisor-suite", "--"]);
        cargo
    } else {
        let mut suites = programs::suite(workspace, suites::PROGRAM)?;
        suites.args(["run", program]);
        suites
    };
    let status = command.args(arguments).stdin(Stdio::inherit()).status()?;
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
    PROGRAMS.iter().fold("Programs (each has its own --help):".into(), |mut text, (name, about)| {
        let _ = write!(text, "\n  {name:13} {about}");
        text
    })
}
