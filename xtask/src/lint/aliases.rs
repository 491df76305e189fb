//! Checks the glossary's names: each must exist in the package that its row states, and the
//! libraries' public types must have the Linux and KVM names from the second column as
//! `#[doc(alias)]`, so that searching the documentation finds them.

use std::fs;

use anyhow::{Context, Result, ensure};

use super::layers;
use doorbell_harness::source;
use doorbell_harness::workspace::{Package, Workspace};

const GLOSSARY: &str = "docs/glossary.md";
const HEADING: &str = "## Words and their terms";
const ITEMS: [&str; 4] = ["pub struct ", "pub enum ", "pub trait ", "pub type "];

/// Returns the names that no package has, and the types that lack an alias.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let glossary = fs::read_to_string(workspace.root.join(GLOSSARY)).context(GLOSSARY)?;
    let table = glossary.split_once(HEADING).map_or("", |(_, table)| table);
    let rows = table.lines().take_while(|line| !line.starts_with("## "));
    let rows: Vec<_> = rows.filter(|row| row.starts_with('|')).collect();
    ensure!(!rows.is_empty(), "{GLOSSARY}: no table below `{HEADING}`");
    let mut findings = Vec::new();
    for row in rows {
        let cells: Vec<_> = row.split('|').collect();
        let [_, names, terms, place, _] = cells[..] else {
            findings.push(format!("{GLOSSARY}: not three cells: {row}"));
            continue;
        };
        let stated = |package: &&Package| quoted(place).any(|name| name == package.name);
        let packages: Vec<_> = workspace.packages.iter().filter(stated).collect();
        for name in quoted(names) {
            let mut exists = false;
            for package in &packages {
                for file in package.rust_files()? {
                    let text = fs::read_to_string(&file)?;
                    if !text.contains(name) {
                        continue;
                    }
                    exists |= source::words(&text).iter().any(|(_, word)| word == name);
                    let found = lacking(&text, name, terms).into_iter();
                    let found = found.filter(|_| layers::is_library(&package.name));
                    let shown = workspace.relative(&file).display();
                    findings.extend(found.map(|what| format!("{shown}: {what}")));
                }
            }
            if !exists {
                findings.push(format!("{GLOSSARY}: no package of its row has `{name}`"));
            }
        }
    }
    Ok(findings)
}

/// Returns the terms that are not aliases of the public item `name` in this source text.
fn lacking(text: &str, name: &str, terms: &str) -> Vec<String> {
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    // A macro defines identifier types, each on a line with the name and a quoted description.
    let is_item = |line: &&str| match ITEMS.iter().find_map(|item| line.strip_prefix(item)) {
        Some(item) => words(item).next() == Some(name),
        None => line.ends_with("\",") && line.starts_with(name) && words(line).next() == Some(name),
    };
    let Some(at) = lines.iter().position(is_item) else { return Vec::new() };
    let above = lines[..at].iter().rev().take_while(|line| line.starts_with(['/', '#']));
    let above = above.copied().collect::<String>();
    let terms = quoted(terms).map(|term| term.trim_start_matches("struct "));
    let terms = terms.filter(|term| term.len() > 3 && words(term).next() == Some(*term));
    let absent = terms.filter(|term| !above.contains(&format!("#[doc(alias = \"{term}\")]")));
    absent.map(|term| format!("`{name}` lacks `#[doc(alias = \"{term}\")]`")).collect()
}

/// Returns the names in a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c != '_' && !c.is_alphanumeric()).filter(|word| !word.is_empty())
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
        let lacks = |text| lacking(text, "Irq", "Linux: `irq_desc`, `struct irqaction`, `–`").len();
        assert_eq!(lacks("/// A number.\npub struct Irq(u32);"), 2);
        assert_eq!(
            lacks("#[doc(alias = \"irq_desc\")]\n#[doc(alias = \"irqaction\")]\npub enum Irq {"),
            0
        );
        assert_eq!(lacks("Irq, u32, \"number\","), 2);
        assert_eq!(lacks("struct Irq;\npub struct IrqHandle;"), 0);
    }
}
