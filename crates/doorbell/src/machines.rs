//! `doorbell machines`.

use crate::cli::OutputArgs;
use crate::exit::Outcome;
use crate::print;
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

#[derive(Serialize)]
struct Row {
    name: &'static str,
    description: &'static str,
}

/// Lists the embedded machines, the default one first.
pub(crate) fn machines(output: &OutputArgs) -> Result<Outcome> {
    let rows: Vec<Row> = doorbell_machine::embedded::machines()
        .iter()
        .map(|machine| Row { name: machine.name, description: machine.description })
        .collect();
    if output.json {
        print::json(&rows)?;
    } else {
        let mut table = print::table(["machine", "what it is"]);
        for row in &rows {
            table.add_row([row.name, row.description]);
        }
        print::text(|out| writeln!(out, "{table}"))?;
    }
    Ok(Outcome::Good)
}
