//! Tasks that are programs of other packages, which get the rest of the command line.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};

use crate::suites;
use crate::tally::Tally;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// A program that is called like its task.
struct Program {
    name: &'static str,
    /// Folder of its workspace, below the root.
    folder: &'static str,
    package: &'static str,
    about: &'static str,
}

const fn program(name: &'static str, about: &'static str) -> Program {
    Program { name, folder: "", package: suites::PACKAGE, about }
}

const PROGRAMS: &[Program] = &[
    program("differential", "Compare the model with QEMU's GIC and ITS for as long as wanted"),
    program(
        "figures",
        "Measure, and write the figures of docs/measurements.md; on an idle machine",
    ),
    program("findings", "Write what lint finds in Debian's devicetrees; read it before a commit"),
    Program {
        name: "hypervisor",
        folder: suites::EL2,
        package: suites::HYPERVISOR,
        about: "Run a guest on the hypervisor, on this terminal",
    },
    program("kvm", "Have Linux's KVM for arm64 judge more of the model than the test does"),
    program("qemu", "Run the bare-metal test bench on one of QEMU's machines, and watch"),
];

/// Runs the program that the first word names, with the others as its arguments.
pub(crate) fn run(workspace: &Workspace, words: &[OsString]) -> Result<ExitCode> {
    let (name, arguments) = words.split_first().context("no task is named")?;
    let program = PROGRAMS.iter().find(|program| program.name == name).with_context(|| {
        format!("no task `{}`; cargo xtask help names them", name.to_string_lossy())
    })?;
    let mut cargo = process::cargo(&workspace.root.join(program.folder));
    cargo.args(["run", "--quiet", "--package", program.package]);
    if program.folder.is_empty() {
        cargo.args(["--bin", program.name]);
    }
    let status = cargo.arg("--").args(arguments).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Writes the figures, as a step.
pub(crate) fn figures(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let written = run(workspace, &["figures".into()])?;
    ensure!(written == ExitCode::SUCCESS, "the figures were not written");
    tally.pass(1);
    Ok(())
}

/// Describes these tasks in the form of clap's help.
pub(crate) fn help() -> String {
    PROGRAMS.iter().fold("Programs (each has its own --help):".into(), |mut text, program| {
        let _ = write!(text, "\n  {:13} {}", program.name, program.about);
        text
    })
}
