//! House lints: project rules that the compiler can't check.

mod blocks;
mod circles;
mod contexts;
mod files;
mod foreign;
mod layers;
pub(crate) mod lines;
mod locks;
mod manifests;
mod orderings;
mod orphans;
mod promises;
mod readmes;
mod reexports;
mod unsafety;

use anyhow::{Result, bail};

pub(crate) use layers::{is_library, libraries};

use crate::tally::Tally;
use doorbell_harness::workspace::Workspace;

/// A rule: its name, and a function that returns its findings, each a sentence that starts with the
/// location.
type Rule = (&'static str, fn(&Workspace) -> Result<Vec<String>>);

const RULES: &[Rule] = &[
    ("layers", |workspace| Ok(layers::check(workspace))),
    ("blocks", blocks::check),
    ("circles", circles::check),
    ("contexts", contexts::check),
    ("locks", locks::check),
    ("manifests", |workspace| Ok(manifests::check(workspace))),
    ("promises", promises::check),
    ("readmes", readmes::check),
    ("reexports", reexports::check),
    ("foreign", foreign::check),
    ("orphans", orphans::check),
    ("unsafe", unsafety::check),
    ("orderings", orderings::check),
    ("lines", lines::check),
];

/// Runs every rule, one case per rule.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    for (name, rule) in RULES {
        tally.case(name, none(&rule(workspace)?));
    }
    Ok(())
}

fn none(findings: &[String]) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    bail!("\n  {}", findings.join("\n  "))
}
