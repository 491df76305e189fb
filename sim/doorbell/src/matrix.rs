//! `doorbell matrix`.

mod text;

use crate::cli::OutputArgs;
use crate::exit;
use crate::print;
use anyhow::Result;
use doorbell_matrix::{Cell, Outcome};
use serde::Serialize;
use std::io::Write;

#[derive(Serialize)]
struct CellRow<'a> {
    endpoint: &'static str,
    parent: &'static str,
    layer: &'static str,
    world: &'static str,
    outcome: &'static str,
    /// The reason for the failure; `null` if the combination works.
    reason: Option<&'a str>,
}

impl<'a> CellRow<'a> {
    fn of((cell, outcome): &'a (Cell, Outcome)) -> Self {
        let (outcome, reason) = match outcome {
            Outcome::Works => ("works", None),
            Outcome::Refused(reason) => ("refused", Some(reason.as_str())),
            Outcome::Broken(reason) => ("broken", Some(reason.as_str())),
        };
        Self {
            endpoint: cell.endpoint.name(),
            parent: cell.parent.name(),
            layer: cell.layer.name(),
            world: cell.world.name(),
            outcome,
            reason,
        }
    }
}

/// Tries every kind of endpoint on every parent, behind every layer, in every world.
pub(crate) fn matrix(output: &OutputArgs) -> Result<exit::Outcome> {
    let tried = doorbell_matrix::try_all();
    if output.json {
        print::json_rows(&tried.iter().map(CellRow::of).collect::<Vec<_>>())?;
    } else {
        print::text(|out| write!(out, "{}", text::of(&tried)))?;
    }
    let broken = tried.iter().any(|(_, outcome)| matches!(outcome, Outcome::Broken(_)));
    Ok(if broken { exit::Outcome::Findings } else { exit::Outcome::Good })
}
