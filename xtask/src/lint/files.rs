//! Lists the hand-written files of this repository, without test data and artifacts.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use doorbell_harness::workspace::Workspace;

/// Folders without prose or code of this project.
const OTHER: &[&str] = &["target", "data", "artifacts", "corpus"];

/// Returns the files with one of these extensions, in order.
pub(crate) fn with_extensions(workspace: &Workspace, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(&workspace.root, extensions, &mut files)?;
    files.sort();
    Ok(files)
}

/// Returns the findings in the files with one of these extensions. `find` receives a file's path
/// relative to the root and its text, and returns a line number and a description for each finding.
pub(crate) fn findings(
    workspace: &Workspace,
    extensions: &[&str],
    find: impl Fn(&Path, &str) -> Vec<(usize, String)>,
) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for file in with_extensions(workspace, extensions)? {
        let shown = workspace.relative(&file);
        let found = find(shown, &fs::read_to_string(&file)?).into_iter();
        findings.extend(found.map(|(line, what)| format!("{}:{line}: {what}", shown.display())));
    }
    Ok(findings)
}

fn collect(folder: &Path, extensions: &[&str], files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in folder.read_dir().with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            if !name.starts_with('.') && !OTHER.contains(&&*name) {
                collect(&path, extensions, files)?;
            }
        } else if path
            .extension()
            .is_some_and(|found| extensions.iter().any(|wanted| found == *wanted))
        {
            files.push(path);
        }
    }
    Ok(())
}
