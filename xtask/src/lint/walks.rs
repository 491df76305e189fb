//! Checks the steps ("stops") of the code walks in the architecture document. Each stop must refer
//! to an existing file and function.

use std::fs;

use anyhow::{Context, Result};

use doorbell_harness::workspace::Workspace;

const PAGE: &str = "docs/architecture.md";
/// Heading of the section with the walks.
const HEADING: &str = "## Two walks";

/// A numbered item: the file, and the function with its type.
#[derive(Debug, PartialEq, Eq)]
struct Stop<'a> {
    file: &'a str,
    function: &'a str,
}

/// Returns the stops whose file or function does not exist.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let page = workspace.root.join(PAGE);
    let page = fs::read_to_string(page).with_context(|| format!("cannot read {PAGE}"))?;
    let mut findings = Vec::new();
    let stops = stops(&page);
    if stops.is_empty() {
        findings.push(format!("{PAGE}: no stops below `{HEADING}`"));
    }
    for stop in stops {
        let finding = match stop {
            Err(line) => Some(format!("an item names no file and function: {line}")),
            Ok(Stop { file, function }) => match fs::read_to_string(workspace.root.join(file)) {
                Err(_) => Some(format!("{file} does not exist")),
                Ok(text) if !has(&text, function) => Some(format!("{file} has no `{function}`")),
                Ok(_) => None,
            },
        };
        findings.extend(finding.map(|finding| format!("{PAGE}: {finding}")));
    }
    Ok(findings)
}

/// Parses the numbered items. An item that does not name a file and a function is an error.
fn stops(page: &str) -> Vec<Result<Stop<'_>, &str>> {
    let section = page.split_once(HEADING).map_or("", |(_, section)| section);
    let section = section.split("\n## ").next().unwrap_or("");
    let items = section.lines().filter_map(|line| {
        let (number, item) = line.split_once(". ")?;
        number.parse::<u32>().is_ok().then_some(item)
    });
    items.map(|item| stop(item).ok_or(item)).collect()
}

fn stop(item: &str) -> Option<Stop<'_>> {
    let (file, rest) = item.strip_prefix('`')?.split_once("`, `")?;
    let (function, _) = rest.split_once("`:")?;
    Some(Stop { file, function })
}

/// Returns `true` if the text defines the function and names its type.
fn has(text: &str, function: &str) -> bool {
    let mut names = function.rsplit("::");
    let name = names.next().unwrap_or(function);
    let definition = format!("fn {name}");
    let is_defined = text.match_indices(&definition).any(|(at, _)| {
        let after = text.get(at + definition.len()..).unwrap_or("");
        after.starts_with(['(', '<'])
    });
    is_defined && names.all(|owner| text.contains(owner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stops_of_a_walk_are_the_numbered_items_of_its_section() {
        let page = "1. `a.rs`, `f`: no\n## Two walks\n\n1. `b.rs`, `T::f`: goes\n   on\n2. Goes\n\n\
                    ## Next\n3. `c.rs`, `f`: no\n";
        let stop = Stop { file: "b.rs", function: "T::f" };
        assert_eq!(stops(page), [Ok(stop), Err("Goes")]);
    }

    #[test]
    fn a_function_is_found_only_by_its_whole_name() {
        let text = "impl Table {\n    pub fn find<T>(&self) {}\n    fn open(x: u8) {}\n}\n";
        assert!(has(text, "find") && has(text, "Table::open"));
        assert!(!has(text, "fin") && !has(text, "Tree::open") && !has(text, "close"));
    }
}
