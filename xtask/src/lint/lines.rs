//! Counts the lines of code, and compares each part of the tree with its budget in
//! `docs/architecture.md`. Only a change that is worth its lines may raise a budget.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use doorbell_harness::source;
use doorbell_harness::workspace::Workspace;

const PAGE: &str = "docs/architecture.md";
/// Header of the table of budgets.
const HEAD: &str = "| part | code | tests and examples |\n|---|---|---|\n";

/// Lines of code, and of tests and examples, by folder.
type Count = BTreeMap<String, [usize; 2]>;

/// Returns the parts that exceed their budgets, or have none.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let page = fs::read_to_string(workspace.root.join(PAGE))?;
    let budgets = budgets(&page)?;
    let mut findings = Vec::new();
    for (part, lines) in counted(workspace, 1)? {
        let budget = budgets.get(&part).copied().unwrap_or_default();
        if lines.iter().zip(budget).any(|(lines, budget)| *lines > budget) {
            findings.push(format!(
                "{part}: {lines:?} lines, more than {budget:?}; `cargo xtask lines` lists them"
            ));
        }
    }
    Ok(findings)
}

/// Prints the lines of each folder of a part, and those of the part beside its budget.
pub(crate) fn print(workspace: &Workspace) -> Result<()> {
    let page = fs::read_to_string(workspace.root.join(PAGE))?;
    let (budgets, folders) = (budgets(&page)?, counted(workspace, 2)?);
    println!("{:<24} {:>8} {:>8}", "", "code", "tests");
    for (part, [code, tests]) in counted(workspace, 1)? {
        for (folder, [code, tests]) in folders.range(part.clone()..) {
            if !folder.starts_with(&format!("{part}/")) {
                break;
            }
            println!("{folder:<24} {code:>8} {tests:>8}");
        }
        let [most_code, most_tests] = budgets.get(&part).copied().unwrap_or_default();
        println!("{part:<24} {code:>8} {tests:>8} of {most_code} and {most_tests}\n");
    }
    Ok(())
}

/// Reads the table of budgets.
fn budgets(page: &str) -> Result<Count> {
    let (_, table) =
        page.split_once(HEAD).with_context(|| format!("{PAGE} has no table of budgets"))?;
    let row = |row: &str| {
        let mut cells = row.trim_matches(['|', ' ']).split(" | ");
        let part = cells.next().context("no part")?.trim_matches('`').to_owned();
        let mut number = || cells.next().context("no number")?.parse().context("not a number");
        anyhow::Ok((part, [number()?, number()?]))
    };
    let rows = table.lines().take_while(|line| line.starts_with('|'));
    rows.map(|line| row(line).with_context(|| format!("{PAGE}: `{line}`"))).collect()
}

/// Counts the lines of all Rust files by the first components of their paths.
fn counted(workspace: &Workspace, components: usize) -> Result<Count> {
    let mut sums = Count::new();
    for file in workspace.files(&["rs"])? {
        let below = workspace.relative(&file);
        let folder = below.parent().unwrap_or(Path::new("")).components().take(components);
        let folder = folder.collect::<std::path::PathBuf>().display().to_string();
        let sum = sums.entry(folder).or_default();
        let [code, tests] = count(below, &fs::read_to_string(&file)?);
        *sum = [sum[0] + code, sum[1] + tests];
    }
    Ok(sums)
}

/// Counts a file's lines that are neither blank nor comments. Unit tests must be at its end.
pub(super) fn count(file: &Path, text: &str) -> [usize; 2] {
    let is_test = file.with_extension("").iter().any(|part| part == "tests" || part == "examples");
    let start = if is_test { 0 } else { lines_before_tests(text) };
    let code = source::without_comments(text);
    let (mut before, mut after) = (0, 0);
    for (at, _) in code.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        *(if at < start { &mut before } else { &mut after }) += 1;
    }
    [before, after]
}

/// Returns the number of lines before the unit tests, which must be at the end of a file.
fn lines_before_tests(text: &str) -> usize {
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
    fn comments_and_blank_lines_are_not_counted() {
        let text = concat!(
            "//! A\n\nfn f() {}\n/* b\n */\nconst S: &str = \"\n// c\n\";\n",
            "#[cfg(test)]\nmod t {\n}\n",
        );
        assert_eq!(count(Path::new("src/a.rs"), text), [4, 3]);
        assert_eq!(count(Path::new("tests/a.rs"), text), [0, 7]);
    }

    #[test]
    fn the_budget_table_ends_at_the_first_blank_line() {
        let page = format!("a\n{HEAD}| `b` | 1 | 2 |\n\n| `c` | 3 | 4 |\n");
        assert_eq!(budgets(&page).unwrap(), Count::from([("b".to_owned(), [1, 2])]));
        assert!(budgets(&format!("{HEAD}| `b` | 1 |\n")).is_err());
    }
}
