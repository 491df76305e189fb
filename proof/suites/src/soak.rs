//! Runs `proof/soak`, random programs on real threads, for a fixed number of messages.

use std::process::Command;

use anyhow::{Result, ensure};
use doorbell_harness::suite::{Case, is_long};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{hang, process};
use doorbell_test_support::suites::MESSAGES;

pub(crate) fn cases() -> Vec<Case> {
    let messages = MESSAGES[usize::from(is_long())];
    vec![Case::of(format!("chaos, {messages} messages"), move || run(messages))]
}

fn run(messages: u64) -> Result<()> {
    // In a short run, building with more optimization would take longer than running.
    let mut program = program(workspace::this()?, is_long())?;
    program.args(["--messages", &messages.to_string()]);
    let mut failure = String::new();
    let limit = if is_long() { hang::LONG } else { hang::RUN };
    let status = process::watch(&mut program, limit, |line| {
        eprintln!("{line}");
        if failure.is_empty() && line.contains(" failed: ") {
            line.clone_into(&mut failure);
        }
    })?;
    ensure!(status.success(), "ended with {status}; {failure}");
    Ok(())
}

/// Builds the program with all optimizations, or with the dependencies that the tests have, and
/// returns the command that runs it. The caller adds the program's arguments.
///
/// # Errors
/// Fails if cargo fails.
pub(crate) fn program(workspace: &Workspace, optimized: bool) -> Result<Command> {
    const NAME: &str = "doorbell-soak";
    // A test among the targets selects the features that the tests' dependencies have.
    const TESTED: &[&str] = &["--workspace", "--all-features", "--bin", NAME, "--test", "suites"];
    let arguments = if optimized { &["--release", "--package", NAME][..] } else { TESTED };
    process::must(process::cargo(&workspace.root).args(["build", "--quiet"]).args(arguments))?;
    Ok(Command::new(workspace.target.join(if optimized { "release" } else { "debug" }).join(NAME)))
}
