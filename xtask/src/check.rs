//! A quick check for use during development: format and house lints, clippy for the changed
//! packages and their direct dependents, and tests of the changed packages. Bare-metal packages are
//! omitted, and so are the cases of suites.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;

use crate::step::timed;
use crate::{counted, lint, rust, tally};
use doorbell_harness::workspace::{Package, Workspace};
use doorbell_harness::{hang, process, toolchain};

/// Options of a check.
#[derive(Debug, clap::Args)]
pub(crate) struct Wanted {
    /// Check the changes since the common ancestor with this revision, committed or not
    #[arg(long, value_name = "REVISION", default_value = "main")]
    since: String,
}

/// Checks the changes, and prints the number of cases.
pub(crate) fn run(workspace: &Workspace, wanted: &Wanted) -> Result<ExitCode> {
    let files = changed_files(&workspace.root, &wanted.since)?;
    let Concerned { changed, dependents } = concerned(workspace, &files);
    let mut rows = vec![
        timed("format", "rustfmt's check", |tally| rust::check_format(workspace, tally)),
        timed("lint", "house lints", |tally| lint::run(workspace, tally)),
    ];
    let names = changed.iter().copied().collect::<Vec<_>>().join(", ");
    if changed.is_empty() {
        println!("no package of the root's workspace has changed since {}", wanted.since);
    } else {
        rows.push(timed("clippy", &format!("{names}, and their dependents"), |tally| {
            toolchain::need_component(&workspace.root, "clippy")?;
            let chosen = choice(changed.union(&dependents));
            let clippy = [&chosen, &["--all-targets", "--all-features"][..]].concat();
            rust::clippy_case("clippy", workspace, "", &clippy, tally);
            Ok(())
        }));
        rows.push(timed("test", &names, |tally| {
            let mut cargo = process::cargo(&workspace.root);
            cargo.args(["test", "--all-features", "--no-fail-fast"]).args(choice(&changed));
            // These packages are built again after the next change. Proptest's default is 256.
            cargo.env("CARGO_INCREMENTAL", "1").env("PROPTEST_CASES", "32");
            counted::count_all(&mut cargo, 2 * hang::CASE, tally)
        }));
    }
    Ok(tally::summarize(&rows))
}

/// Returns the files that differ from the common ancestor with `since`, including untracked ones.
fn changed_files(root: &Path, since: &str) -> Result<Vec<PathBuf>> {
    let git = |arguments: &[&str]| {
        let mut git = process::command("git", root);
        process::capture(git.args(arguments))
    };
    let base = git(&["merge-base", since, "HEAD"])?;
    let tracked = git(&["diff", "--name-only", base.trim()])?;
    let untracked = git(&["ls-files", "--others", "--exclude-standard"])?;
    Ok(tracked.lines().chain(untracked.lines()).map(|line| root.join(line)).collect())
}

/// Returns cargo's options that choose these packages.
fn choice<'a>(packages: impl IntoIterator<Item = &'a &'a str>) -> Vec<&'a str> {
    packages.into_iter().flat_map(|name| ["--package", name]).collect()
}

/// Packages for the host that a change concerns.
#[derive(Debug)]
struct Concerned<'a> {
    changed: BTreeSet<&'a str>,
    /// Packages that depend directly on a library that changed, and may have changed themselves.
    dependents: BTreeSet<&'a str>,
}

/// Returns the packages that changes of `files` concern. A change to a workspace's manifest changes
/// all of its packages.
fn concerned<'a>(workspace: &'a Workspace, files: &[PathBuf]) -> Concerned<'a> {
    let members = || workspace.packages.iter().filter(|package| package.hosted);
    let manifests = ["Cargo.toml", "Cargo.lock"].map(|name| workspace.root.join(name));
    if manifests.iter().any(|manifest| files.contains(manifest)) {
        let changed = members().map(|package| &*package.name).collect();
        return Concerned { changed, dependents: BTreeSet::new() };
    }
    let (mut changed, mut interfaces) = (BTreeSet::new(), BTreeSet::new());
    for file in files {
        let owner = members()
            .filter(|package| file.starts_with(&package.folder))
            .max_by_key(|package| package.folder.as_os_str().len());
        let Some(owner) = owner else { continue };
        changed.insert(&*owner.name);
        if is_of_library(owner, file) {
            interfaces.insert(&*owner.name);
        }
    }
    let depends = |package: &&Package| {
        package.dependencies.iter().any(|other| other.local && interfaces.contains(&*other.name))
    };
    let dependents = members().filter(depends).map(|package| &*package.name).collect();
    Concerned { changed, dependents }
}

/// Returns `true` if a file can affect a package's dependents, unlike its tests, examples and
/// documents.
fn is_of_library(package: &Package, file: &Path) -> bool {
    file.starts_with(package.folder.join("src")) || file == package.folder.join("Cargo.toml")
}

#[cfg(test)]
mod tests {
    use super::*;
    use doorbell_harness::workspace::Dependency;

    fn package(name: &str, uses: &[&str]) -> Package {
        let local =
            |name: &&str| Dependency { name: (*name).into(), kind: "dev".into(), local: true };
        let mut package = Package::fake(name, uses.iter().map(local).collect());
        package.folder = Path::new("/doorbell/crates").join(name);
        package
    }

    /// Returns the packages that changed, and their dependents.
    fn concerned_by(file: &str) -> [Vec<String>; 2] {
        let root = PathBuf::from("/doorbell");
        let mut hypervisor = package("hypervisor", &["vgic"]);
        hypervisor.folder = root.join("el2/hypervisor");
        hypervisor.hosted = false;
        let mut suite = package("hypervisor-suite", &[]);
        suite.folder = root.join("el2/suite");
        let packages = vec![
            package("gic-arch", &[]),
            package("vgic", &["gic-arch"]),
            package("vgic-kvm", &["vgic"]),
            hypervisor,
            suite,
        ];
        let workspace = Workspace { target: root.join("target"), root, packages };
        let files = [workspace.root.join(file)];
        let Concerned { changed, dependents } = concerned(&workspace, &files);
        [changed, dependents].map(|names| names.into_iter().map(Into::into).collect())
    }

    #[test]
    fn a_library_change_concerns_its_direct_dependents() {
        assert_eq!(concerned_by("crates/gic-arch/src/gicd.rs"), [["gic-arch"], ["vgic"]]);
        assert_eq!(concerned_by("crates/vgic/Cargo.toml"), [["vgic"], ["vgic-kvm"]]);
    }

    #[test]
    fn a_change_in_tests_concerns_only_their_package() {
        assert_eq!(concerned_by("crates/vgic/tests/it/main.rs"), [vec!["vgic"], vec![]]);
    }

    #[test]
    fn a_workspace_manifest_change_concerns_every_package() {
        let all = vec!["gic-arch", "hypervisor-suite", "vgic", "vgic-kvm"];
        assert_eq!(concerned_by("Cargo.lock"), [all, vec![]]);
    }

    #[test]
    fn packages_for_bare_metal_are_omitted() {
        let suite = vec!["hypervisor-suite"];
        assert_eq!(concerned_by("el2/suite/src/report.rs"), [suite, vec![]]);
        for other in ["el2/hypervisor/src/main.rs", "docs/hierarchy.md"] {
            assert_eq!(concerned_by(other).concat(), Vec::<String>::new());
        }
    }
}
