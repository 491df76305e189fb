//! Checks the crates of other projects whose types appear in the libraries' interfaces, by
//! `docs/api`. `docs/architecture.md` must list each of them, because its breaking releases are
//! breaking releases of ours.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::layers;
use doorbell_harness::workspace::Workspace;

const PAGE: &str = "docs/architecture.md";
/// Header of the table.
const HEAD: &str = "| crate | in the interface of | reason |\n";
/// First segments of paths that name no crate of another project, besides those of our libraries.
const OWN: &[&str] = &["alloc", "core", "std", "Self", "u8", "u16", "u32", "u64"];

/// A crate, and the library in whose interface it appears.
type Use<'a> = (&'a str, &'a str);

/// Returns the uses that the page does not list, and those that it lists although no interface has
/// them.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let read = |file: &str| {
        fs::read_to_string(workspace.root.join(file)).with_context(|| format!("cannot read {file}"))
    };
    let page = read(PAGE)?;
    let listed = listed(&page);
    ensure!(!listed.is_empty(), "{PAGE}: no table of foreign crates");
    let mut findings = Vec::new();
    for library in layers::libraries() {
        let file = format!("docs/api/{library}.txt");
        let text = read(&file)?;
        let found = foreign(&text);
        let listed = listed.iter().filter(|(_, user)| *user == library).map(|(name, _)| *name);
        let listed: BTreeSet<_> = listed.collect();
        findings.extend(found.difference(&listed).map(|name| {
            format!("{file}: `{name}` is not ours: wrap its type, or list the crate in {PAGE}")
        }));
        findings.extend(
            listed.difference(&found).map(|name| format!("{PAGE}: {file} has no type of `{name}`")),
        );
    }
    Ok(findings)
}

/// Returns the table's rows, one use for each library.
fn listed(page: &str) -> BTreeSet<Use<'_>> {
    let rows = page.split_once(HEAD).map_or("", |(_, rows)| rows);
    let rows = rows.lines().take_while(|row| row.starts_with('|'));
    let uses = rows.filter_map(|row| {
        let mut cells = row.split('|').skip(1).map(|cell| cell.split('`').skip(1).step_by(2));
        let (mut name, users) = (cells.next()?, cells.next()?);
        let name = name.next()?;
        Some(users.map(move |user| (name, user)))
    });
    uses.flatten().collect()
}

/// Returns the foreign crates in the paths of an interface.
fn foreign(interface: &str) -> BTreeSet<&str> {
    let is_in_path = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | ':');
    let paths = interface.split(|letter| !is_in_path(letter));
    let crates = paths.filter_map(|path| path.split_once("::")).map(|(name, _)| name);
    let ours: Vec<_> = layers::libraries().map(|name| name.replace('-', "_")).collect();
    let is_ours = |name: &str| {
        let mut own = OWN.iter().copied().chain(ours.iter().map(String::as_str));
        own.any(|own| name.strip_suffix(own).is_some_and(|rest| rest.is_empty() || is_item(rest)))
    };
    // A name of one letter is a type parameter.
    crates.filter(|name| name.len() > 1 && !is_ours(name)).collect()
}

/// Returns `true` for an associated type. The lists have no separator between it and its bound.
fn is_item(name: &str) -> bool {
    name.starts_with(char::is_uppercase) && !name.ends_with('_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_crate_is_found_by_its_paths() {
        let interface = "pub fn vgic::Vgic::set(&self, &spin::Once<u32>) -> core::fmt::Result\n\
                         impl<T: Iterator<Item: serde_core::ser::Serialize>> vgic::A for T\n";
        assert_eq!(foreign(interface), BTreeSet::from(["serde_core", "spin"]));
    }

    #[test]
    fn paths_of_parameters_and_bounds_name_no_crate() {
        let interface = "pub fn u64::from(Self::Item) -> <T as gic_arch::A>::B\n\
                         pub fn T::read<V: core::A<Itemcore::clone::Clone>>(T::A)\n";
        assert_eq!(foreign(interface), BTreeSet::new());
    }

    #[test]
    fn a_row_lists_a_crate_for_several_libraries() {
        let page = format!("a\n{HEAD}|---|---|---|\n| `b` | `c`, `d` | `e` |\n\n| `f` | `g` |\n");
        assert_eq!(listed(&page), BTreeSet::from([("b", "c"), ("b", "d")]));
    }
}
