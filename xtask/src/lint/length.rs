//! One concern, one file.

use std::fs;

use anyhow::Result;

use crate::workspace::Workspace;

/// What a file should not exceed before its tests: worth a look, printed.
const USUAL: usize = 400;
/// What it must not exceed: a finding.
const MOST: usize = 600;

/// Source files that are too long before their tests.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in &workspace.packages {
        for file in
            package.rust_files()?.into_iter().filter(|file| file.starts_with(package.folder.join("src")))
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

fn lines_before_tests(text: &str) -> usize {
    text.lines().take_while(|line| line.trim() != "#[cfg(test)]").count()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn tests_at_the_end_do_not_count() {
        assert_eq!(lines_before_tests("a\nb\n#[cfg(test)]\nmod tests {\n}\n"), 2);
    }
}
