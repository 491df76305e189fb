//! Tasks that are programs of other packages, which get the rest of the command line.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{process, suites};

/// A program that is called like its task.
struct Program {
    name: &'static str,
    package: &'static str,
    about: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "differential",
        package: suites::PACKAGE,
        about: "Compare the model with QEMU's GIC and ITS for as long as wanted",
    },
    Program {
        name: "figures",
        package: suites::PACKAGE,
        about: "Measure, and write the figures of docs/measurements.md; on a machine that is idle",
    },
    Program {
        name: "findings",
        package: suites::PACKAGE,
        about: "Write the findings in Debian's devicetrees, to be read before they are committed",
    },
];

/// Runs the program that the first word names, with the others as its arguments.
pub(crate) fn run(workspace: &Workspace, words: &[OsString]) -> Result<ExitCode> {
    let (name, arguments) = words.split_first().context("no task is named")?;
    let program = PROGRAMS.iter().find(|program| program.name == name).with_context(|| {
        format!("no task `{}`; cargo xtask help names them", name.to_string_lossy())
    })?;
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["run", "--quiet", "--package", program.package, "--bin", program.name, "--"]);
    let status = cargo.args(arguments).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Describes these tasks in the form of clap's help.
pub(crate) fn help() -> String {
    PROGRAMS.iter().fold("Programs (each has its own --help):".into(), |mut text, program| {
        let _ = write!(text, "\n  {:13} {}", program.name, program.about);
        text
    })
}
