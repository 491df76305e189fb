//! Checks that our public types have the Linux and KVM names from the glossary's second column as
//! `#[doc(alias)]`, so that searching the documentation finds them.

use std::fs;

use anyhow::{Context, Result};

use super::files;
use doorbell_harness::workspace::Workspace;

const GLOSSARY: &str = "docs/glossary.md";
const HEADING: &str = "## Words and their terms";
const ITEMS: [&str; 4] = ["pub struct ", "pub enum ", "pub trait ", "pub type "];

/// Returns the types that lack an alias.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let glossary = fs::read_to_string(workspace.root.join(GLOSSARY)).context(GLOSSARY)?;
    let table = glossary.split_once(HEADING).map_or("", |(_, table)| table);
    let rows: Vec<_> = table.lines().take_while(|line| !line.starts_with("## ")).collect();
    let mut findings = Vec::new();
    for file in files::with_extensions(workspace, &["rs"])? {
        let shown = workspace.relative(&file).display().to_string();
        let Some((package, _)) =
            shown.strip_prefix("crates/").and_then(|path| path.split_once("/src/"))
        else {
            continue;
        };
        let text = fs::read_to_string(&file)?;
        for row in &rows {
            let cells: Vec<_> = row.split('|').collect();
            let [_, names, terms, place, _] = cells[..] else { continue };
            if quoted(place).any(|name| name.trim_start_matches("doorbell-") == package) {
                let lacking = quoted(names).flat_map(|name| lacking(&text, name, terms));
                findings.extend(lacking.map(|what| format!("{shown}: {what}")));
            }
        }
    }
    Ok(findings)
}

/// Returns the terms that are not aliases of the public item `name` in this source text.
fn lacking<'a>(text: &'a str, name: &'a str, terms: &'a str) -> impl Iterator<Item = String> + 'a {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let is_item = |line: &&str| {
        let item = ITEMS.iter().find_map(|item| line.strip_prefix(item)).unwrap_or(line);
        let rest = item.strip_prefix(name).filter(|_| item != *line || line.ends_with("\","));
        rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
    };
    let at = lines.iter().position(is_item);
    let above = at.map(|at| {
        lines[..at]
            .iter()
            .rev()
            .copied()
            .take_while(|line| line.starts_with(['/', '#']))
            .collect::<String>()
    });
    let terms = quoted(terms).map(|term| term.trim_start_matches("struct "));
    let terms = terms.filter(|term| {
        term.len() > 3 && term.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_')
    });
    terms.filter_map(move |term| {
        let has = above.as_ref()?.contains(&format!("#[doc(alias = \"{term}\")]"));
        (!has).then(|| format!("`{name}` lacks `#[doc(alias = \"{term}\")]`"))
    })
}

/// Returns the parts of a cell in code font.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_type_needs_its_aliases() {
        let lacks =
            |text| lacking(text, "Irq", "Linux: `irq_desc`, the `struct irqaction`").count();
        assert_eq!(lacks("/// A number.\npub struct Irq(u32);"), 2);
        assert_eq!(
            lacks("#[doc(alias = \"irq_desc\")]\n#[doc(alias = \"irqaction\")]\npub enum Irq {"),
            0
        );
        assert_eq!(lacks("struct Irq;\npub struct IrqHandle;"), 0);
    }
}
