//! The command on the machine that it carries with it, and the rules by which its totals are
//! judged.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;
use crate::step::Tally;
use crate::workspace::Workspace;

/// Longest time of a first look, building excepted.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time after which a run counts as hung.
const LIMIT: Duration = Duration::from_mins(1);

/// `cargo run --release`, as a newcomer types it, and its report for programs.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let command = build(workspace)?;
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
    tally.case("--json", judge_totals(&report["totals"]).map(|summary| println!("{summary}")));
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

/// Builds the command and says where it is.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    process::must(process::cargo(&workspace.root).args([
        "build",
        "--release",
        "--package",
        "doorbell",
    ]))?;
    Ok(workspace.target.join("release/doorbell"))
}

/// Nothing lost, spurious or at a wrong CPU, and something sent; a summary in words.
pub(crate) fn judge_totals(totals: &Value) -> Result<String> {
    let number =
        |name: &str| totals[name].as_u64().with_context(|| format!("totals without `{name}`"));
    for fault in ["lost", "spurious", "wrong_cpu", "guest_faults", "no_doorbell"] {
        let count = number(fault)?;
        ensure!(count == 0, "{fault}: {count}");
    }
    let (vectors, sent) = (number("vectors")?, number("sent")?);
    let (delivered, coalesced) = (number("delivered")?, number("coalesced")?);
    ensure!(vectors > 0 && sent > 0, "nothing was sent");
    ensure!(
        delivered + coalesced == sent,
        "{sent} sent, {delivered} delivered, {coalesced} coalesced"
    );
    Ok(format!("{vectors} vectors, {sent} sent, {delivered} delivered"))
}

fn accept(good: bool, otherwise: &str) -> Result<()> {
    ensure!(good, "{otherwise}");
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;
    use serde_json::json;

    fn totals(lost: u64, coalesced: u64) -> Value {
        json!({
            "vectors": 2, "sent": 10, "delivered": 9, "coalesced": coalesced, "lost": lost,
            "spurious": 0, "wrong_cpu": 0, "guest_faults": 0, "no_doorbell": 0,
        })
    }

    #[test]
    fn totals_that_add_up_are_good() {
        assert!(judge_totals(&totals(0, 1)).is_ok());
    }

    #[test]
    fn wrong_counts_are_refused() {
        assert!(judge_totals(&totals(1, 1)).is_err());
        assert!(judge_totals(&totals(0, 0)).is_err());
        assert!(judge_totals(&json!({ "lost": 0 })).is_err());
    }
}
