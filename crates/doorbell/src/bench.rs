//! `doorbell bench`.

use crate::cli::BenchArgs;
use crate::exit::Outcome;
use crate::print::{self, Output};
use anyhow::Result;
use doorbell_bench::{Case, MeasureOptions, Measurements};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
struct Document<'a> {
    floor_ns: f64,
    cases: Vec<Row<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    skipped: Vec<Skipped<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    median_ns: f64,
    min_ns: f64,
    ratio: f64,
    /// Name of the measurement that the ratio refers to.
    of: String,
}

/// A case that cannot be measured here.
#[derive(Serialize)]
struct Skipped<'a> {
    name: &'a str,
    reason: &'a str,
}

/// Measures, and prints times as ratios to an uncontended `fetch_or` or to what the case names.
pub(crate) fn bench(args: &BenchArgs) -> Result<Outcome> {
    let measured = doorbell_bench::measure(&MeasureOptions {
        rounds: args.rounds,
        peers: args.peers.clone(),
    })?;
    if args.output.json {
        print::json(&Document::of(&measured))?;
    } else {
        print::text(|out| print_text(out, &measured))?;
    }
    Ok(Outcome::Good)
}

fn print_text(out: &mut Output, measured: &Measurements) -> io::Result<()> {
    let mut table = print::table(["case", "median ns", "fastest ns", "ratio", "to"]);
    for case in &measured.cases {
        let [median, fastest, ratio] = [case.median_ns, case.min_ns, case.ratio].map(three_digits);
        table.add_row([case.name.clone(), median, fastest, ratio, case.of.to_string()]);
    }
    writeln!(out, "{table}")?;
    for (name, reason) in &measured.skipped {
        writeln!(out, "{name}: not measured, {reason}")?;
    }
    writeln!(out, "an uncontended fetch_or takes {:.2} ns", measured.floor_ns)
}

/// As many decimals as make three digits.
fn three_digits(number: f64) -> String {
    let decimals = if number < 10.0 { 2 } else { usize::from(number < 100.0) };
    format!("{number:.decimals$}")
}

impl<'a> Document<'a> {
    fn of(measured: &'a Measurements) -> Self {
        let skipped = measured.skipped.iter().map(|(name, reason)| Skipped { name, reason });
        Self {
            floor_ns: measured.floor_ns,
            cases: measured.cases.iter().map(Row::of).collect(),
            skipped: skipped.collect(),
        }
    }
}

impl<'a> Row<'a> {
    fn of(case: &'a Case) -> Self {
        Self {
            name: &case.name,
            median_ns: case.median_ns,
            min_ns: case.min_ns,
            ratio: case.ratio,
            of: case.of.to_string(),
        }
    }
}
