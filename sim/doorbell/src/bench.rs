//! `doorbell bench`.

mod markdown;

use crate::cli::BenchArgs;
use crate::exit::Outcome;
use crate::print::{self, Output};
use crate::table::Table;
use crate::wording::three_digits;
use anyhow::{Context, Result, ensure};
use doorbell_bench::{MeasureOptions, Measurements};
use std::io::{self, Write};
use std::process::{Command, Stdio};

/// Measures in one or more processes, and prints times as ratios to each case's floor.
pub(crate) fn bench(args: &BenchArgs) -> Result<Outcome> {
    let measured = match args.processes {
        1 => doorbell_bench::measure(&MeasureOptions {
            rounds: args.rounds,
            peers: args.peers.clone(),
        })?,
        processes => {
            let all = (0..processes).map(|_| another_process(args)).collect::<Result<Vec<_>>>()?;
            Measurements::merged(&all).context("no process has measured")?
        }
    };
    let write = if args.markdown { markdown::print } else { print_text };
    print::object(args.output.json, &measured, |out| write(out, &measured))?;
    Ok(Outcome::Good)
}

/// Runs the measurement in a separate process.
fn another_process(args: &BenchArgs) -> Result<Measurements> {
    let program = std::env::current_exe().context("cannot find the program's own file")?;
    let mut command = Command::new(program);
    command.args(["bench", "--json", "--processes", "1", "--rounds", &args.rounds.to_string()]);
    for peer in &args.peers {
        command.arg("--peer").arg(peer);
    }
    let output =
        command.stderr(Stdio::inherit()).output().context("cannot start a measuring process")?;
    ensure!(output.status.success(), "a measuring process ended with {}", output.status);
    serde_json::from_slice(&output.stdout).context("a measuring process wrote malformed output")
}

fn print_text(out: &mut Output, measured: &Measurements) -> io::Result<()> {
    let mut table = Table::new(["case", "median ns", "least ns", "ratio", "to"]);
    for case in &measured.cases {
        let [median, least, ratio] = [case.median_ns, case.min_ns, case.ratio].map(three_digits);
        table.row([&case.name, &median, &least, &ratio, &case.of]);
    }
    writeln!(out, "{table}")?;
    for skipped in &measured.skipped {
        writeln!(out, "{}: not measured, {}", skipped.name, skipped.reason)?;
    }
    writeln!(out, "an uncontended fetch_or takes {:.2} ns", measured.floor_ns)
}
