//! `doorbell bench`.

use crate::cli::OutputArgs;
use crate::exit::Outcome;
use crate::print;
use anyhow::Result;
use doorbell_machine::{Case, Measurements};
use serde::Serialize;

#[derive(Serialize)]
struct Document<'a> {
    floor_ns: f64,
    cases: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    name: &'a str,
    median_ns: f64,
    min_ns: f64,
    ratio: f64,
}

/// Measures, and prints times as ratios to an uncontended `fetch_or`.
pub(crate) fn bench(output: &OutputArgs) -> Result<Outcome> {
    let measured = doorbell_machine::measure()?;
    if output.json {
        print::json(&Document::of(&measured))?;
    } else {
        print_text(&measured);
    }
    Ok(Outcome::Good)
}

fn print_text(measured: &Measurements) {
    let mut table = print::table(["case", "median ns", "fastest ns", "ratio"]);
    for case in &measured.cases {
        let numbers = [case.median_ns, case.min_ns, case.ratio].map(|number| format!("{number:.0}"));
        table.add_row([case.name.clone()].into_iter().chain(numbers));
    }
    println!("{table}");
    println!("ratio to an uncontended fetch_or: {:.2} ns", measured.floor_ns);
}

impl<'a> Document<'a> {
    fn of(measured: &'a Measurements) -> Self {
        Self { floor_ns: measured.floor_ns, cases: measured.cases.iter().map(Row::of).collect() }
    }
}

impl<'a> Row<'a> {
    fn of(case: &'a Case) -> Self {
        Self { name: &case.name, median_ns: case.median_ns, min_ns: case.min_ns, ratio: case.ratio }
    }
}
