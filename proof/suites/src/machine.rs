//! Runs the command on its embedded machine.

use std::fs;

use anyhow::{Context, Result, ensure};
use doorbell_harness::command::Doorbell;
use doorbell_harness::suite::Case;
use doorbell_harness::{command, hang, process, workspace};
use serde_json::Value;

use crate::newcomer;

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::of("cargo run --release", run_as_newcomer),
        Case::of("totals of --json", || {
            let report = json(&["run", "--json"])?;
            eprintln!("{}", command::judge_totals(&report["totals"])?);
            Ok(())
        }),
        Case::of("the guide's monitor restores itself", run_monitor),
        Case::of("a million messages survive migrations", || {
            let kinds = "migrate,hotplug,remove";
            million(&["run", "--json", "--messages", "7400", "--disturb", kinds])
        }),
    ]
}

/// Runs `cargo run --release`, as a newcomer would.
fn run_as_newcomer() -> Result<()> {
    let workspace = workspace::this()?;
    command::build(workspace)?;
    let mut cargo = process::cargo(&workspace.root);
    let cargo = cargo.args(["run", "--release"]);
    let status = process::watch(cargo, hang::RUN, |line| eprintln!("{line}"))?;
    ensure!(status.success(), "the command ended with {status}");
    Ok(())
}

/// Runs the monitor of the guide, and compares what it prints with the guide.
fn run_monitor() -> Result<()> {
    let root = &workspace::this()?.root;
    let guide = fs::read_to_string(root.join("docs/guides/monitor.md"))?;
    let mut shown = newcomer::blocks(&guide, "console").filter_map(|block| block.split_once('\n'));
    let found = shown.find(|(command, _)| command.ends_with("--example monitor"));
    let (command, shown) = found.context("the guide does not run the monitor")?;
    let arguments = command.strip_prefix("$ cargo ").context("another command")?;
    let printed = process::capture(process::cargo(root).args(arguments.split(' ')))?;
    ensure!(printed == shown, "the guide shows\n{shown}\nbut the monitor prints\n{printed}");
    Ok(())
}

/// Checks that a run sends a million messages and loses none.
fn million(arguments: &[&str]) -> Result<()> {
    let totals = &json(arguments)?["totals"];
    eprintln!("{}", command::judge_totals(totals)?);
    ensure!(totals["sent"].as_u64() >= Some(1_000_000), "too few messages: {}", totals["sent"]);
    Ok(())
}

/// Returns the command's output in JSON. If the run found a fault, the error holds the totals.
fn json(arguments: &[&str]) -> Result<Value> {
    let output = process::output(&mut Doorbell::build(workspace::this()?)?.command(arguments))?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    ensure!(output.status.success(), "{}: {}", output.status, report["totals"]);
    Ok(report)
}
