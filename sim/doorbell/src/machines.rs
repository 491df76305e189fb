//! `doorbell machines`.

use crate::exit::Outcome;
use crate::print::{self, OutputArgs};
use crate::table::Table;
use anyhow::Result;
use serde::Serialize;
use std::io::Write;

#[derive(Serialize)]
struct MachineRow {
    name: &'static str,
    description: &'static str,
}

/// Lists the embedded machines, the default one first.
pub(crate) fn machines(output: &OutputArgs) -> Result<Outcome> {
    let rows: Vec<MachineRow> = doorbell_machine::embedded::machines()
        .iter()
        .map(|machine| MachineRow { name: machine.name, description: machine.description })
        .collect();
    let mut table = Table::new(["machine", "what it is"]);
    for row in &rows {
        table.row([row.name, row.description]);
    }
    print::rows(output.json, &rows, |out| writeln!(out, "{table}"))?;
    Ok(Outcome::Good)
}
