//! Searches the hand-written files of this repository.

use std::fs;
use std::path::Path;

use anyhow::Result;

use doorbell_harness::workspace::Workspace;

/// Returns the findings in the files with one of these extensions. `find` receives a file's path
/// relative to the root and its text, and returns a line number and a description for each finding.
pub(crate) fn findings(
    workspace: &Workspace,
    extensions: &[&str],
    find: impl Fn(&Path, &str) -> Vec<(usize, String)>,
) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in workspace.files(extensions)? {
        let shown = workspace.relative(&file);
        let found = find(shown, &fs::read_to_string(&file)?).into_iter();
        findings.extend(found.map(|(line, what)| format!("{}:{line}: {what}", shown.display())));
    }
    Ok(findings)
}
