//! Checks that each lock file matches its manifests. If a dependency is added in one workspace, it
//! must be locked in all other workspaces as well.

use std::path::Path;

use anyhow::{Context, Result};

use super::files;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// Returns the lock files that cargo would have to change.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for lock in files::with_extensions(workspace, &["lock"])? {
        if lock.file_name().is_some_and(|name| name == "Cargo.lock") {
            let folder = lock.parent().context("a file is in a folder")?;
            let shown = workspace.relative(&lock).display();
            findings.extend(misfit(folder)?.map(|why| format!("{shown}: {why}")));
        }
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
