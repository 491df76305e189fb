//! House lints: project rules that the compiler can't check.

mod blocks;
mod circles;
mod contexts;
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

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use doorbell_harness::workspace::{Package, Workspace};

pub(crate) use self::layers::{is_library, libraries};
use crate::tally::Tally;

/// Input of a rule, whose findings are sentences that start with the place.
enum Rule {
    /// Each hand-written Rust file: its path relative to the root, and its text. A finding is a
    /// line number and a description.
    File(fn(&Path, &str) -> Vec<(usize, String)>),
    /// Each package.
    Package(fn(&Workspace, &Package) -> Result<Vec<String>>),
    /// Everything.
    Tree(fn(&Workspace) -> Result<Vec<String>>),
}

const RULES: &[(&str, Rule)] = &[
    ("layers", Rule::Package(|_, package| Ok(layers::strays(package)))),
    ("blocks", Rule::File(blocks::check)),
    ("circles", Rule::Package(circles::check)),
    ("contexts", Rule::File(contexts::check)),
    ("locks", Rule::Tree(locks::check)),
    ("manifests", Rule::Tree(|workspace| Ok(manifests::check(workspace)))),
    ("promises", Rule::Tree(promises::check)),
    ("readmes", Rule::Package(readmes::check)),
    ("reexports", Rule::Package(reexports::check)),
    ("foreign", Rule::Tree(foreign::check)),
    ("orphans", Rule::Package(orphans::check)),
    ("unsafe", Rule::Package(unsafety::check)),
    ("orderings", Rule::File(orderings::check)),
    ("lines", Rule::Tree(lines::check)),
];

/// Runs every rule, one case per rule.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    for (name, rule) in RULES {
        tally.case(name, none(&rule.findings(workspace)?));
    }
    Ok(())
}

impl Rule {
    fn findings(&self, workspace: &Workspace) -> Result<Vec<String>> {
        let mut findings = Vec::new();
        match self {
            Self::File(check) => {
                for file in workspace.files(&["rs"])? {
                    let shown = workspace.relative(&file);
                    let found = check(shown, &fs::read_to_string(&file)?).into_iter();
                    let place = |(line, what)| format!("{}:{line}: {what}", shown.display());
                    findings.extend(found.map(place));
                }
            }
            Self::Package(check) => {
                for package in &workspace.packages {
                    findings.extend(check(workspace, package)?);
                }
            }
            Self::Tree(check) => findings = check(workspace)?,
        }
        Ok(findings)
    }
}

fn none(findings: &[String]) -> Result<()> {
    if findings.is_empty() {
        return Ok(());
    }
    bail!("\n  {}", findings.join("\n  "))
}
