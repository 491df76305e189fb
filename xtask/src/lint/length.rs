//! Files that are too long for one concern.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::workspace::Workspace;

/// Usual limit of lines before a file's tests; a longer file is printed.
const USUAL: usize = 400;
/// Hard limit; a longer file is a finding.
const MOST: usize = 600;

/// Source files that are too long before their tests.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        let source = package.folder.join("src");
        let files = package.rust_files()?.into_iter();
        for file in
            files.filter(|file| file.starts_with(&source) && !is_test(workspace.relative(file)))
        {
            let lines = lines_before_tests(&fs::read_to_string(&file)?);
            let shown = workspace.relative(&file).display();
            if lines > MOST {
                findings.push(format!("{shown}: {lines} lines before its tests, more than {MOST}"));
            } else if lines > USUAL {
                println!("{shown}: {lines} lines before its tests; is it one concern?");
            }
        }
    }
    Ok(findings)
}

/// A module of tests, or in one.
fn is_test(file: &Path) -> bool {
    file.with_extension("").iter().any(|part| part == "tests")
}

fn lines_before_tests(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

#[cfg(test)]
mod test {
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
