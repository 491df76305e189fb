//! Runs `proof/soak` for a fixed number of messages.

#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use doorbell_harness::suite::{self, Case};
use doorbell_harness::{process, workspace};
use doorbell_suites::soak;
use doorbell_test_support::suites::MESSAGES;

/// Time limits, including the build. A long run sends a hundred times as many messages.
const LIMIT: Duration = Duration::from_mins(20);
const LONG_LIMIT: Duration = Duration::from_hours(2);

fn main() -> ExitCode {
    let messages = MESSAGES[usize::from(suite::is_long())];
    let limit = if suite::is_long() { LONG_LIMIT } else { LIMIT };
    let name = format!("chaos, {messages} messages");
    suite::main_in_turn(vec![Case::new(name, limit, move || run(messages, limit))])
}

fn run(messages: u64, limit: Duration) -> Result<()> {
    // In a short run, building with more optimization would take longer than running.
    let mut program = soak::program(workspace::this()?, suite::is_long())?;
    program.args(["--messages", &messages.to_string()]);
    let mut failure = String::new();
    let status = process::watch(&mut program, limit, |line| {
        eprintln!("{line}");
        if failure.is_empty() && line.contains(" failed: ") {
            line.clone_into(&mut failure);
        }
    })?;
    ensure!(status.success(), "ended with {status}; {failure}");
    Ok(())
}
