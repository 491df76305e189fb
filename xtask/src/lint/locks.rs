//! Checks that each lock file matches its manifests. If a dependency is added in one workspace, it
//! must be locked in all other workspaces as well.

use std::path::Path;

use anyhow::Result;

use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// Returns the lock files that cargo would have to change.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for folder in workspace.locked_folders()? {
        let shown = workspace.relative(&folder).join("Cargo.lock");
        findings.extend(misfit(&folder)?.map(|why| format!("{}: {why}", shown.display())));
    }
    Ok(findings)
}

/// Returns the error of resolving the workspace in `folder` without changing its lock file, if any.
fn misfit(folder: &Path) -> Result<Option<String>> {
    let mut cargo = process::cargo(folder);
    let output = process::output(cargo.args(["metadata", "--format-version", "1", "--locked"]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| said.lines().next().unwrap_or_default().to_string()))
}
