//! Counts the lines of code in each package. The numbers are recorded in `docs/architecture.md`: a
//! change that adds lines to a package must record the new number, and its commit message should
//! say why the lines are needed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use doorbell_harness::source;
use doorbell_harness::workspace::{Package, Workspace};

const PAGE: &str = "docs/architecture.md";
/// Header of the table.
const HEAD: &str = "| part | code | tests and examples |\n|---|---|---|\n";

/// Returns the packages that have more lines than recorded, or no row.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let page = fs::read_to_string(workspace.root.join(PAGE))?;
    let (_, table, _) = split(&page)?;
    let mut findings = Vec::new();
    for (part, found) in parts(workspace)? {
        let row = table.lines().find_map(|line| line.strip_prefix(&format!("| `{part}` | ")));
        let recorded = row.map(|row| row.split(" |").map(|n| n.trim().parse().unwrap_or(0)));
        let recorded: Vec<usize> = recorded.map_or_else(Vec::new, Iterator::collect);
        let grown = found.iter().zip(&recorded).any(|(found, recorded)| found > recorded);
        if grown || recorded.is_empty() {
            findings.push(format!(
                "{part}: {found:?} lines, {recorded:?} recorded; `cargo xtask lines` records them"
            ));
        }
    }
    Ok(findings)
}

/// Writes the table with current numbers.
pub(crate) fn accept(workspace: &Workspace) -> Result<()> {
    let file = workspace.root.join(PAGE);
    let page = fs::read_to_string(&file)?;
    let (before, _, after) = split(&page)?;
    let rows = parts(workspace)?.into_iter();
    let rows = rows.map(|(part, [code, tests])| format!("| `{part}` | {code} | {tests} |\n"));
    fs::write(file, [before, HEAD, &rows.collect::<String>(), after].concat()).map_err(Into::into)
}

/// Returns the page before the table, the table's rows, and the page after it.
fn split(page: &str) -> Result<(&str, &str, &str)> {
    let (before, rest) =
        page.split_once(HEAD).with_context(|| format!("{PAGE} has no table of lines"))?;
    let rows: usize =
        rest.split_inclusive('\n').take_while(|it| it.starts_with('|')).map(str::len).sum();
    Ok((before, &rest[..rows], &rest[rows..]))
}

/// Returns the packages' folders in order, each with its lines of code, and its lines of tests and
/// examples.
fn parts(workspace: &Workspace) -> Result<Vec<(String, [usize; 2])>> {
    let mut parts = Vec::new();
    for package in &workspace.packages {
        let name = workspace.relative(&package.folder).display().to_string();
        parts.push((name, lines_of(package)?));
    }
    ensure!(!parts.is_empty(), "the workspace has no packages");
    parts.sort();
    Ok(parts)
}

fn lines_of(package: &Package) -> Result<[usize; 2]> {
    let mut sum = [0; 2];
    for file in package.rust_files()? {
        let below = file.strip_prefix(&package.folder)?;
        let [code, tests] = count(below, &fs::read_to_string(&file)?);
        sum = [sum[0] + code, sum[1] + tests];
    }
    Ok(sum)
}

/// Counts a file's lines that are neither blank nor comments. Unit tests must be at its end.
fn count(file: &Path, text: &str) -> [usize; 2] {
    let is_test = file.with_extension("").iter().any(|part| part == "tests" || part == "examples");
    let start = if is_test { 0 } else { super::length::lines_before_tests(text) };
    let code = source::without_comments(text);
    let (mut before, mut after) = (0, 0);
    for (at, _) in code.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        *(if at < start { &mut before } else { &mut after }) += 1;
    }
    [before, after]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_blank_lines_do_not_count() {
        let text = concat!(
            "//! A\n\nfn f() {}\n/* b\n */\nconst S: &str = \"\n// c\n\";\n",
            "#[cfg(test)]\nmod t {\n}\n",
        );
        assert_eq!(count(Path::new("src/a.rs"), text), [4, 3]);
        assert_eq!(count(Path::new("tests/a.rs"), text), [0, 7]);
    }

    #[test]
    fn rows_end_where_text_begins() {
        let page = format!("a\n{HEAD}| `b` | 1 | 2 |\n\nc\n");
        assert_eq!(split(&page).unwrap(), ("a\n", "| `b` | 1 | 2 |\n", "\nc\n"));
    }
}
