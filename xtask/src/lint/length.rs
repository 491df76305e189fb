//! Finds files that are too long to have a single concern.

use std::fs;
use std::path::Path;

use anyhow::Result;

use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// Soft limit for the number of lines before a file's tests. Longer files are printed but don't
/// fail the lint.
const USUAL: usize = 400;
/// Hard limit for the number of lines of a file, including its tests. Longer files are findings.
const MOST: usize = 600;
/// Maximum size of a tracked file, in bytes. A larger one is an artifact of a run or a release.
const MOST_BYTES: u64 = 200_000;

/// Returns the Rust files that are too long, including their tests, and tracked files that are too
/// large.
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
        let text = fs::read_to_string(&file)?;
        let shown = workspace.relative(&file);
        let (lines, product) = (text.lines().count(), lines_before_tests(&text));
        if lines > MOST {
            findings.push(format!("{}: {lines} lines, more than {MOST}", shown.display()));
        } else if product > USUAL && !is_test(shown) {
            let shown = shown.display();
            println!("{shown}: {product} lines before its tests; does it have a single concern?");
        }
    }
    Ok(findings)
}

/// Returns `true` for a test module, and for files below one.
fn is_test(file: &Path) -> bool {
    file.with_extension("").iter().any(|part| part == "tests")
}

/// Returns the number of lines before the unit tests, which must be at the end of a file.
pub(super) fn lines_before_tests(text: &str) -> usize {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let begins = |pair: &[&str]| {
        let [condition, module] = pair else { return false };
        let is_test = ["#[cfg(test)", "#[cfg(all(test"].iter().any(|it| condition.starts_with(it));
        is_test && module.starts_with("mod ") && module.ends_with('{')
    };
    lines.windows(2).position(begins).unwrap_or(lines.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_of_tests_do_not_count() {
        let is_test = |path| is_test(Path::new(path));
        assert!(
            is_test("src/its/tests.rs")
                && is_test("src/its/tests/queue.rs")
                && !is_test("src/its/queue.rs")
        );
    }

    #[test]
    fn tests_at_the_end_do_not_count() {
        assert_eq!(lines_before_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    }
}
