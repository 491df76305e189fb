//! Lists the public interfaces of the libraries in `docs/api`. The lists are a baseline, which a
//! release refreshes: an item that is removed or changed since then breaks users.
//!
//! The format of rustdoc's JSON output changes between compilers. The lists are only compared if
//! the compiler writes the format supported here; otherwise, the comparison is skipped.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use public_api::Builder;
use rustdoc_types::FORMAT_VERSION;
use serde_json::Value;

use crate::lint;
use crate::package::published;
use crate::tally::Tally;
use doorbell_harness::process;
use doorbell_harness::toolchain::{BARE_TARGET, need_target};
use doorbell_harness::workspace::{Package, Workspace};

/// The target for libraries that run on every machine.
const HOSTED_TARGET: &str = "x86_64-unknown-linux-gnu";

/// Compares each library's interface with its baseline, one case per library.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    for target in [HOSTED_TARGET, BARE_TARGET] {
        if let Err(absent) = need_target(&workspace.root, target) {
            tally.skip(format!("the interfaces for {target}: {absent:#}"));
            continue;
        }
        for (package, document) in document(workspace, target)? {
            match read(&document)? {
                Interface::Listed(found) => {
                    tally.case(&package.name, compare(&path(workspace, package), &found));
                }
                Interface::OtherFormat(other) => tally.skip(format!(
                    "{}: this compiler's rustdoc writes JSON of format {other}, not \
                     {FORMAT_VERSION}",
                    package.name
                )),
            }
        }
    }
    Ok(())
}

/// Writes new lists.
pub(crate) fn accept(workspace: &Workspace) -> Result<ExitCode> {
    for target in [HOSTED_TARGET, BARE_TARGET] {
        need_target(&workspace.root, target)?;
        for (package, document) in document(workspace, target)? {
            let Interface::Listed(list) = read(&document)? else {
                bail!("needs a compiler whose rustdoc writes JSON of format {FORMAT_VERSION}");
            };
            let path = path(workspace, package);
            fs::write(&path, list).with_context(|| format!("cannot write {}", path.display()))?;
            println!("{}", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Rustdoc's output for a library.
enum Interface {
    Listed(String),
    OtherFormat(u64),
}

/// Documents the libraries of a target with all their features, and returns their JSON files.
fn document<'a>(
    workspace: &'a Workspace,
    target: &'static str,
) -> Result<Vec<(&'a Package, PathBuf)>> {
    let libraries: Vec<_> = published(workspace)
        .filter(|package| lint::is_library(&package.name) && target_of(package) == target)
        .collect();
    let folder = workspace.target.join("api");
    let mut cargo = process::cargo(&workspace.root);
    // This variable makes the stable compiler accept the option, whose output format is unstable.
    cargo.env("RUSTC_BOOTSTRAP", "1");
    cargo.env("RUSTDOCFLAGS", "-D warnings -Z unstable-options --output-format json");
    cargo.args(["doc", "--quiet", "--lib", "--no-deps", "--all-features", "--target", target]);
    cargo.arg("--target-dir").arg(&folder);
    cargo.args(libraries.iter().flat_map(|package| ["--package", &package.name]));
    process::must(&mut cargo)?;
    let folder = folder.join(target).join("doc");
    let file = |package: &Package| folder.join(package.name.replace('-', "_") + ".json");
    Ok(libraries.into_iter().map(|package| (package, file(package))).collect())
}

/// Returns the target for which a library is documented: the target that its manifest states, if
/// any.
fn target_of(package: &Package) -> &'static str {
    let shown = package.field("metadata")["docs"]["rs"]["default-target"].as_str();
    if shown.is_some_and(|target| target.starts_with("aarch64")) {
        BARE_TARGET
    } else {
        HOSTED_TARGET
    }
}

fn read(document: &Path) -> Result<Interface> {
    let text = fs::read_to_string(document)
        .with_context(|| format!("cannot read {}", document.display()))?;
    let format = serde_json::from_str::<Value>(&text)?["format_version"].as_u64();
    let format = format.context("rustdoc's JSON has no `format_version`")?;
    if format != u64::from(FORMAT_VERSION) {
        return Ok(Interface::OtherFormat(format));
    }
    list(document).map(Interface::Listed)
}

/// Returns the items of an interface, one per line.
///
/// For a derived trait, only the implementation is listed, without its methods. `Send` and `Sync`
/// are the only auto traits that are listed.
fn list(document: &Path) -> Result<String> {
    let all = || Builder::from_rustdoc_json(document).omit_blanket_impls(true);
    let declared = || all().omit_auto_trait_impls(true);
    let lines = |builder: Builder| -> Result<Vec<String>> {
        Ok(builder.build()?.items().map(ToString::to_string).collect())
    };
    let written: BTreeSet<_> =
        lines(declared().omit_auto_derived_impls(true))?.into_iter().collect();
    let declared: BTreeSet<_> = lines(declared())?.into_iter().collect();
    let is_listed = |line: &String| {
        let has = |name: &str| line.contains(&format!("core::marker::{name} for "));
        written.contains(line)
            || line.starts_with("impl")
                && if declared.contains(line) {
                    !has("StructuralPartialEq")
                } else {
                    has("Send") || has("Sync")
                }
    };
    Ok(lines(all())?.into_iter().filter(is_listed).map(|line| line + "\n").collect())
}

/// Checks that an interface still has all items of its baseline.
fn compare(path: &Path, found: &str) -> Result<()> {
    let baseline =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found: BTreeSet<_> = found.lines().collect();
    let removed: Vec<_> = baseline.lines().filter(|item| !found.contains(item)).collect();
    ensure!(
        removed.is_empty(),
        "{} items of the interface are missing or changed, which breaks users (`cargo xtask api` \
         writes a new baseline):\n  {}",
        removed.len(),
        removed.join("\n  ")
    );
    Ok(())
}

fn path(workspace: &Workspace, package: &Package) -> PathBuf {
    workspace.root.join("docs/api").join(&package.name).with_extension("txt")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::env;

    #[test]
    fn a_removed_item_fails_and_a_new_one_passes() -> Result<()> {
        let file = env::temp_dir().join(format!("doorbell-api-{}.txt", std::process::id()));
        fs::write(&file, "pub fn a()\npub fn b()\n")?;
        let (removed, added) = (
            compare(&file, "pub fn a()\n"),
            compare(&file, "pub fn a()\npub fn b()\npub fn c()\n"),
        );
        fs::remove_file(&file)?;
        assert!(removed.unwrap_err().to_string().ends_with("\n  pub fn b()"));
        added
    }

    #[test]
    fn an_interface_in_another_format_version_is_not_read() -> Result<()> {
        let file = env::temp_dir().join(format!("doorbell-api-{}.json", std::process::id()));
        fs::write(&file, r#"{ "format_version": 1, "root": [] }"#)?;
        let read = read(&file);
        fs::remove_file(&file)?;
        assert!(matches!(read?, Interface::OtherFormat(1)));
        Ok(())
    }
}
