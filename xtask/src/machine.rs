//! The command on the machine that it carries with it, and the rules by which its totals are
//! judged.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use doorbell_harness::command;

use crate::process;
use crate::step::Tally;
use crate::workspace::Workspace;

/// Longest time of a first look, building excepted.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after which a run counts as hung.
const LIMIT: Duration = Duration::from_mins(1);

/// `cargo run --release`, as a newcomer types it, and its report for programs.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let command = command::build(workspace)?;
    let mut cargo = process::cargo(&workspace.root);
    let start = Instant::now();
    let status =
        process::watch(cargo.args(["run", "--release"]), LIMIT, |line| println!("{line}"))?;
    let taken = start.elapsed();
    tally.case(
        "cargo run --release",
        accept(status.code() == Some(0), &format!("ended with {status}")),
    );
    let taken_text = format!("took {:.1} s", taken.as_secs_f32());
    tally.case("within 10 s", accept(taken < PATIENCE, &taken_text));
    let mut json = process::command(&command.to_string_lossy(), &workspace.root);
    let report: Value = serde_json::from_str(&process::capture(json.args(["run", "--json"]))?)?;
    tally.case(
        "--json",
        command::judge_totals(&report["totals"]).map(|summary| println!("{summary}")),
    );
    let mut bench = process::command(&command.to_string_lossy(), &workspace.root);
    let bench = process::capture(bench.args(["bench", "--json"]).args(SAMPLES))?;
    let measured: Value = serde_json::from_str(&bench)?;
    tally.case("direct LPIs against an ITS", judge_bench(&measured));
    Ok(())
}

/// Enough that one process was not disturbed most of the time.
const SAMPLES: [&str; 4] = ["--processes", "3", "--rounds", "17"];

/// There is no command queue between a driver and its direct LPIs: setting up and moving cost less
/// than at an ITS.
fn judge_bench(measured: &Value) -> Result<()> {
    let cases = measured["cases"].as_array().context("no cases")?;
    let least = |name: &str| {
        let case = cases.iter().find(|case| case["name"] == name);
        case.and_then(|case| case["min_ns"].as_f64()).with_context(|| format!("no case {name}"))
    };
    for operation in ["setup", "move"] {
        let (its, direct) =
            (least(&format!("{operation}-its"))?, least(&format!("{operation}-direct-lpi"))?);
        println!("{operation}: {direct:.0} ns with direct LPIs, {its:.0} ns with an ITS");
        ensure!(
            direct < its,
            "{operation}: {direct:.0} ns with direct LPIs, {its:.0} ns with an ITS"
        );
    }
    Ok(())
}

fn accept(good: bool, otherwise: &str) -> Result<()> {
    ensure!(good, "{otherwise}");
    Ok(())
}
