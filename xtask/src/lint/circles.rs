//! Files or modules of a package that use each other, directly or through others: none can be read
//! first.

use anyhow::Result;

use super::graph;
use crate::workspace::Workspace;

/// Packages that are not held to it: programs, and what they alone use.
const PROGRAMS: &[&str] = &["xtask"];

/// Returns the circles between files and between modules.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in workspace.packages.iter().filter(|package| !PROGRAMS.contains(&&*package.name)) {
        for circle in graph::circles(package)? {
            findings.push(format!("{}: {} use each other", package.name, circle.join(", ")));
        }
    }
    Ok(findings)
}
