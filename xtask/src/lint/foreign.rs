//! Checks the crates of other projects that the libraries depend on. `docs/architecture.md` must
//! list each crate whose types appear in a library's interface, because its breaking releases are
//! breaking releases of ours. All others are [`PRIVATE`].

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};

use super::layers;
use doorbell_harness::workspace::{Package, Workspace};

const PAGE: &str = "docs/architecture.md";
/// Header of the table.
const HEAD: &str = "| crate | in the interface of | reason |\n";
/// Crates whose types no library's signatures contain.
const PRIVATE: &[&str] = &[
    "bitfield-struct",
    "dtoolkit",
    "once_cell",
    "postcard",
    "rustix",
    "safe-mmio",
    "spin",
    "thiserror",
];

/// A crate, and the library that depends on it.
type Use<'a> = (&'a str, &'a str);

/// Returns the uses that the page does not list, and those that it lists although no library has
/// them.
pub(crate) fn check(workspace: &Workspace) -> Result<Vec<String>> {
    let page = fs::read_to_string(workspace.root.join(PAGE))
        .with_context(|| format!("cannot read {PAGE}"))?;
    let listed = listed(&page);
    ensure!(!listed.is_empty(), "{PAGE}: no table of foreign crates");
    let libraries = workspace.packages.iter().filter(|package| layers::is_library(&package.name));
    let found: BTreeSet<_> = libraries.flat_map(foreign).collect();
    let absent = found.difference(&listed).map(|(name, user)| {
        format!(
            "{user}: `{name}` is not ours: keep its types private and list it there, or in {PAGE}"
        )
    });
    let unused = listed.difference(&found);
    let unused = unused.map(|(name, user)| format!("{PAGE}: {user} does not use `{name}`"));
    Ok(absent.chain(unused).collect())
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

/// Returns a library's uses of crates that are not private.
fn foreign(library: &Package) -> impl Iterator<Item = Use<'_>> {
    let dependencies = library.dependencies.iter().filter(|it| it.kind == "normal" && !it.local);
    let names = dependencies.map(|dependency| dependency.name.as_str());
    names.filter(|name| !PRIVATE.contains(name)).map(|name| (name, library.name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_harness::workspace::Dependency;

    #[test]
    fn dependencies_of_other_projects_are_public_unless_private() {
        let dependency = |(name, kind, local): (&str, &str, bool)| Dependency {
            name: name.into(),
            kind: kind.into(),
            local,
        };
        let all = [
            ("serde", "normal", false),
            ("spin", "normal", false),
            ("proptest", "dev", false),
            ("gic-arch", "normal", true),
        ];
        let library = Package::fake("vgic", all.map(dependency).into());
        assert!(foreign(&library).eq([("serde", "vgic")]));
    }

    #[test]
    fn a_row_lists_a_crate_for_several_libraries() {
        let page = format!("a\n{HEAD}|---|---|---|\n| `b` | `c`, `d` | `e` |\n\n| `f` | `g` |\n");
        assert_eq!(listed(&page), BTreeSet::from([("b", "c"), ("b", "d")]));
    }
}
