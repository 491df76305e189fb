//! Each lock file fits its manifests: what one workspace gains is locked in the others too.

use std::path::Path;

use anyhow::{Context, Result};

use super::files;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// The lock files that cargo would have to change.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for lock in files::with_extensions(workspace, &["lock"])? {
        if lock.file_name().is_some_and(|name| name == "Cargo.lock") {
            let folder = lock.parent().context("a file lies in a folder")?;
            let shown = workspace.relative(&lock).display();
            findings.extend(misfit(folder)?.map(|why| format!("{shown}: {why}")));
        }
    }
    Ok(findings)
}

/// The error of resolving the workspace in `folder` without a change of its lock file.
fn misfit(folder: &Path) -> Result<Option<String>> {
    let mut cargo = process::cargo(folder);
    let output = process::output(cargo.args(["metadata", "--format-version", "1", "--locked"]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| said.lines().next().unwrap_or_default().to_string()))
}
