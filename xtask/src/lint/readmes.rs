//! Checks the README of each published package: it must have the required contents, its links must
//! also work on docs.rs, and its code must equal a tested file.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::layers;
use doorbell_harness::workspace::{Package, Workspace};

/// File name of the README, which the manifest must state.
const PAGE: &str = "README.md";
/// Sections of every README.
const SECTIONS: &[&str] = &["For whom", "Limits", "Rust version", "License"];
const CODE: &str = "```rust\n";

/// Returns the required contents that the READMEs lack or state incorrectly.
pub(crate) fn check(workspace: &Workspace, package: &Package) -> Result<Vec<String>> {
    if !package.published {
        return Ok(Vec::new());
    }
    let place = package.folder.join(PAGE);
    let shown = workspace.relative(&place).display().to_string();
    let page = fs::read_to_string(&place).with_context(|| format!("cannot read {shown}"))?;
    let links = Links { root: &workspace.root, repository: &tree(package), page: &page };
    let mut found = [lacks(package, &page), links.strange(), links.strange_examples()].concat();
    if package.field("readme") != PAGE {
        found.push(format!("not the `readme` that the manifest of {} names", package.name));
    }
    if layers::is_library(&package.name) && !page.contains(CODE) {
        found.push("a library's README must have an example".into());
    }
    Ok(found.into_iter().map(|what| format!("{shown}: {what}")).collect())
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

/// Returns the address of the repository's files on the web.
fn tree(package: &Package) -> String {
    format!("{}/blob/main/", package.field("repository").as_str().unwrap_or_default())
}

/// The links of a page. docs.rs does not resolve relative links.
struct Links<'a> {
    /// The folder of the repository.
    root: &'a Path,
    /// The address of the same folder on the web.
    repository: &'a str,
    page: &'a str,
}

impl Links<'_> {
    /// Returns the links that are relative, or that name a file which does not exist.
    fn strange(&self) -> Vec<String> {
        let inline = self.page.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let defined = self.definitions().map(|(_, address)| address);
        let strange = |address: &&str| match self.file(address) {
            Some(file) => !file.exists(),
            None => !address.starts_with("https://"),
        };
        let found = inline.map(|(address, _)| address).chain(defined).filter(strange);
        found.map(|address| format!("the link {address} is relative, or names no file")).collect()
    }

    /// Returns the code blocks that differ from the file that is linked before them.
    fn strange_examples(&self) -> Vec<String> {
        let mut parts = self.page.split(CODE);
        let mut before = parts.next().unwrap_or("");
        let mut findings = Vec::new();
        for part in parts {
            let (code, after) = part.split_once("```").unwrap_or((part, ""));
            let label = before.rsplit_once('[').and_then(|(_, rest)| rest.split_once(']'));
            let label = label.map_or("", |(label, _)| label);
            let address = self.definitions().find(|(defined, _)| *defined == label);
            let file = address.and_then(|(_, address)| self.file(address));
            match file.map(fs::read_to_string) {
                Some(Ok(text)) if text == code => {}
                Some(Ok(_)) => findings.push(format!("the code differs from {label}")),
                _ => findings.push(format!("no existing file is linked before the code: {label}")),
            }
            before = after;
        }
        findings
    }

    /// Returns the labels of the page's links, with their addresses.
    fn definitions(&self) -> impl Iterator<Item = (&str, &str)> {
        self.page.lines().filter_map(|line| line.strip_prefix('[')?.split_once("]: "))
    }

    /// Returns the file of the repository that has this address.
    fn file(&self, address: &str) -> Option<PathBuf> {
        address.strip_prefix(self.repository).map(|file| self.root.join(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(page: &str) -> (Vec<String>, Vec<String>) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let links = Links { root, repository: "https://a/", page };
        (links.strange(), links.strange_examples())
    }

    #[test]
    fn code_must_equal_the_linked_file() {
        let page = |code: &str| {
            format!("By [it]:\n\n```rust\n{code}```\n\n[it]: https://a/src/lint/reexports.rs\n")
        };
        assert_eq!(own(&page(include_str!("reexports.rs"))), Default::default());
        assert_eq!(own(&page("fn main() {}\n")).1, ["the code differs from it"]);
    }

    #[test]
    fn code_without_a_linked_file_is_reported() {
        let (_, findings) = own("Text.\n\n```rust\nfn main() {}\n```\n");
        assert_eq!(findings, ["no existing file is linked before the code: "]);
    }

    #[test]
    fn links_that_point_to_no_file_are_reported() {
        let (findings, _) = own("[b](c.md) [d](https://e)\n\n[f]: https://a/g\n[h]: https://i\n");
        assert_eq!(findings.len(), 2, "{findings:?}");
    }

    #[test]
    fn a_readme_without_required_parts_is_reported() {
        let package = Package::fake("some", Vec::new());
        let findings = lacks(&package, "# some\n\n## For whom\n\n## License\n");
        assert_eq!(findings.len(), 3, "{findings:?}");
    }
}
