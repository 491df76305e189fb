//! Every example of every package, run as its reader would.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::process;
use crate::step::Tally;
use crate::workspace::{Package, Workspace};

/// An example shows something; it does not work for minutes. Includes building it.
const LIMIT: Duration = Duration::from_mins(3);

/// Runs them all, each counted as one case.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    process::must(process::cargo(&workspace.root).args([
        "build",
        "--workspace",
        "--examples",
        "--all-features",
    ]))?;
    for package in &workspace.packages {
        for example in package.targets.iter().filter(|target| target.kind == "example") {
            let name = format!("{}/{}", package.name, example.name);
            println!("example {name}");
            tally.case(&name, run_one(workspace, package, &example.name));
        }
    }
    Ok(())
}

fn run_one(workspace: &Workspace, package: &Package, example: &str) -> Result<()> {
    let mut cargo = process::cargo(&workspace.root);
    cargo.args([
        "run",
        "--quiet",
        "--all-features",
        "--package",
        &package.name,
        "--example",
        example,
    ]);
    let status = process::watch(&mut cargo, LIMIT, |line| println!("  {line}"))?;
    ensure!(status.success(), "ended with {status}");
    Ok(())
}
