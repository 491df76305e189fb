//! The README of a published package: its required contents, and code that must equal a tested
//! file.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::layers;
use doorbell_harness::workspace::{Package, Workspace};

/// File name of the README, which the manifest must state.
const PAGE: &str = "README.md";
/// Sections of every README.
const SECTIONS: &[&str] = &["For whom", "Limits", "Rust version", "License"];
const CODE: &str = "```rust\n";

/// Returns the required contents that the READMEs lack or state incorrectly.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for package in workspace.packages.iter().filter(|package| package.published) {
        let place = package.folder.join(PAGE);
        let shown = workspace.relative(&place).display().to_string();
        if package.field("readme") != PAGE {
            findings.push(format!("{}: `readme` is not {PAGE}", package.name));
        }
        let page = fs::read_to_string(&place).with_context(|| format!("cannot read {shown}"))?;
        findings.extend(lacks(package, &page).into_iter().map(|what| format!("{shown}: {what}")));
        let examples = strange_examples(&package.folder, &page);
        findings.extend(examples.into_iter().map(|what| format!("{shown}: {what}")));
        if layers::is_library(&package.name) && !page.contains(CODE) {
            findings.push(format!("{shown}: a library's README must have an example"));
        }
    }
    Ok(findings)
}

/// Returns the sections, compiler version and features that the page lacks.
fn lacks(package: &Package, page: &str) -> Vec<String> {
    let mut findings = Vec::new();
    let mut wish = |line: String| {
        if !page.lines().any(|found| found == line) {
            findings.push(format!("no line `{line}`"));
        }
    };
    wish(format!("# {}", package.name));
    for section in SECTIONS {
        wish(format!("## {section}"));
    }
    let features = package.field("features").as_object().into_iter().flat_map(|table| table.keys());
    features.filter(|name| *name != "default").for_each(|name| wish(format!("### `{name}`")));
    let version = package.field("rust_version").as_str().unwrap_or_default();
    wish(format!("Rust {version} or later. A later minor version may raise it."));
    findings
}

/// Returns the code blocks that differ from the file that is linked before them.
fn strange_examples(folder: &Path, page: &str) -> Vec<String> {
    let mut parts = page.split(CODE);
    let mut before = parts.next().unwrap_or("");
    let mut findings = Vec::new();
    for part in parts {
        let (code, after) = part.split_once("```").unwrap_or((part, ""));
        let file = before.rsplit_once("](").and_then(|(_, rest)| rest.split_once(')'));
        let file = file.map_or("", |(file, _)| file);
        match fs::read_to_string(folder.join(file)) {
            Ok(text) if text == code => {}
            Ok(_) => findings.push(format!("the code differs from {file}")),
            Err(_) => {
                findings.push(format!("no existing file is linked before the code: `{file}`"));
            }
        }
        before = after;
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(page: &str) -> Vec<String> {
        strange_examples(Path::new(env!("CARGO_MANIFEST_DIR")), page)
    }

    #[test]
    fn code_equals_the_linked_file() {
        let page = |code: &str| format!("By [it](src/lint/reexports.rs):\n\n```rust\n{code}```\n");
        assert!(own(&page(include_str!("reexports.rs"))).is_empty());
        assert_eq!(own(&page("fn main() {}\n")), ["the code differs from src/lint/reexports.rs"]);
    }

    #[test]
    fn code_without_a_file_is_found() {
        let findings = own("Text.\n\n```rust\nfn main() {}\n```\n");
        assert_eq!(findings, ["no existing file is linked before the code: ``"]);
    }

    #[test]
    fn a_page_states_each_feature() {
        let package = Package::fake("some", Vec::new());
        let findings = lacks(&package, "# some\n\n## For whom\n\n## License\n");
        assert_eq!(findings.len(), 3, "{findings:?}");
    }
}
