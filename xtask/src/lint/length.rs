//! Finds files that are too long to have a single concern.

use std::fs;

use anyhow::Result;

use super::lines;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// Maximum number of lines of code in a file, including its tests.
const MOST: usize = 400;
/// Maximum size of a tracked file, in bytes. A larger one is an artifact of a run or a release.
const MOST_BYTES: u64 = 200_000;

/// Returns the Rust files that are too long, and tracked files that are too large.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let tracked =
        process::capture(process::command("git", &workspace.root).args(["ls-files", "-z"]))?;
    for file in tracked.split_terminator('\0') {
        // A file that was removed is tracked until the next commit.
        let bytes = fs::metadata(workspace.root.join(file)).map_or(0, |file| file.len());
        if bytes > MOST_BYTES {
            findings.push(format!("{file}: {bytes} bytes, more than {MOST_BYTES}"));
        }
    }
    for file in workspace.files(&["rs"])? {
        let shown = workspace.relative(&file);
        let [code, tests] = lines::count(shown, &fs::read_to_string(&file)?);
        let sum = code + tests;
        if sum > MOST {
            findings.push(format!("{}: {sum} lines of code, more than {MOST}", shown.display()));
        }
    }
    Ok(findings)
}
