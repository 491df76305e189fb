//! Finds files or modules in a package that use each other, directly or through others, so that
//! neither can be understood without the other.

use anyhow::Result;

use doorbell_harness::modules;
use doorbell_harness::workspace::Workspace;

/// Returns the circular dependencies between files and between modules.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        for circle in modules::circles(package)? {
            findings.push(format!("{}: {} use each other", package.name, circle.join(", ")));
        }
    }
    Ok(findings)
}
