//! Checks that the tests mentioned in the threat model exist in the packages stated there.

use std::fs;

use anyhow::{Context, Result};

use doorbell_harness::workspace::Workspace;

const PAGE: &str = "SECURITY.md";
/// Heading of the section that lists the promises.
const HEADING: &str = "## Promises";
/// Placeholder for the package in the name of a fuzz target.
const FUZZ: &str = "fuzz";

/// Returns the promises without a test, and the tests that do not exist.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let page = workspace.root.join(PAGE);
    let page = fs::read_to_string(page).with_context(|| format!("cannot read {PAGE}"))?;
    let mut findings = Vec::new();
    for promise in promises(&page) {
        let tests = tests(promise);
        if tests.is_empty() && !promise.contains("house lint") {
            findings.push(format!("{PAGE}: no test is named for this promise: {promise}"));
        }
        for (package, test) in tests {
            if !exists(workspace, package, test)? {
                findings.push(format!("{PAGE}: {package} has no test `{test}`"));
            }
        }
    }
    if findings.is_empty() && promises(&page).next().is_none() {
        findings.push(format!("{PAGE}: no promises below `{HEADING}`"));
    }
    Ok(findings)
}

/// Returns the items of the section's lists.
fn promises(page: &str) -> impl Iterator<Item = &str> {
    let section = page.split_once(HEADING).map_or("", |(_, section)| section);
    let section = section.split("\n## ").next().unwrap_or("");
    section.split("\n- ").skip(1).map(|item| item.split("\n\n").next().unwrap_or(item).trim_end())
}

/// Returns the pairs in a promise's text: a package in backquotes, a colon, and a test in
/// backquotes.
fn tests(promise: &str) -> Vec<(&str, &str)> {
    let quoted: Vec<_> = promise.split('`').collect();
    let pairs = quoted.windows(3).enumerate().filter(|(at, _)| at % 2 == 1);
    let named = pairs.filter(|(_, words)| words[1].trim() == ":");
    named.map(|(_, words)| (words[0], words[2])).collect()
}

fn exists(workspace: &Workspace, package: &str, test: &str) -> Result<bool> {
    if package == FUZZ {
        return Ok(workspace.root.join(format!("proof/fuzz/fuzz_targets/{test}.rs")).exists());
    }
    let Some(package) = workspace.packages.iter().find(|other| other.name == package) else {
        return Ok(false);
    };
    let definition = format!("fn {test}(");
    for file in package.rust_files()? {
        if fs::read_to_string(&file)?.contains(&definition) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# S\n\n- `no`: `promise`\n\n## Promises\n\n### A\n\n- One. `a`: `b`; \
                        `c`:\n  `d`.\n- Two, of `x`.\n\n## Next\n\n- `e`: `f`\n";

    #[test]
    fn promises_are_items_of_their_section() {
        let found: Vec<_> = promises(TEXT).collect();
        assert_eq!(found, ["One. `a`: `b`; `c`:\n  `d`.", "Two, of `x`."]);
    }

    #[test]
    fn the_tests_of_a_promise_are_read_with_their_packages() {
        let found: Vec<_> = promises(TEXT).map(tests).collect();
        assert_eq!(found, [vec![("a", "b"), ("c", "d")], Vec::new()]);
    }
}
