//! Finds Rust files that don't belong to any target. Cargo silently ignores these files, so they
//! become stale.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result};

use doorbell_harness::source;
use doorbell_harness::workspace::{Package, Workspace};

/// Returns the files that are not part of any target, and `mod.rs` files outside tests.
pub(crate) fn check(workspace: &Workspace, package: &Package) -> Result<Vec<String>> {
    let (mut findings, mut reached) = (Vec::new(), BTreeSet::new());
    for target in &package.targets {
        reach(&target.source, Root::Yes, &mut reached)?;
    }
    for file in package.rust_files()? {
        let shown = workspace.relative(&file).display();
        if !reached.contains(&file) {
            findings.push(format!("{shown}: no `mod` declares this file"));
        } else if file.ends_with("mod.rs") && file.starts_with(package.folder.join("src")) {
            findings.push(format!("{shown}: rename this file after its folder"));
        }
    }
    Ok(findings)
}

/// The kind of a file: a target's root, whose modules are next to it, or a module, whose modules
/// are in its folder.
#[derive(Clone, Copy)]
enum Root {
    Yes,
    No,
}

fn reach(file: &Path, root: Root, reached: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !file.is_file() || !reached.insert(file.to_path_buf()) {
        return Ok(());
    }
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let beside = file.parent().map(Path::to_path_buf).unwrap_or_default();
    for path in paths(&text) {
        reach(&resolved(&beside, path), Root::Yes, reached)?;
    }
    let folder = match root {
        Root::No if !file.ends_with("mod.rs") => file.with_extension(""),
        Root::Yes | Root::No => beside,
    };
    for name in modules(&source::code_only(&text)) {
        reach(&folder.join(name).with_extension("rs"), Root::No, reached)?;
        reach(&folder.join(name).join("mod.rs"), Root::No, reached)?;
    }
    Ok(())
}

/// Resolves a path from an attribute relative to a folder, and removes its `..` components.
fn resolved(folder: &Path, path: &str) -> PathBuf {
    let mut resolved = folder.to_path_buf();
    for part in Path::new(path).components() {
        match part {
            Component::ParentDir => _ = resolved.pop(),
            part => resolved.push(part),
        }
    }
    resolved
}

/// Returns the files named by `#[path]` attributes.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.trim().strip_prefix("#[path = \"")?.strip_suffix("\"]"))
}

/// Returns the names of the modules with separate files.
fn modules(code: &str) -> Vec<&str> {
    let declared = code.lines().filter_map(|line| line.trim().strip_suffix(';'));
    declared
        .filter_map(|item| match item.rsplit_once(' ') {
            Some(("mod" | "pub mod", name)) => Some(name),
            Some((front, name)) if front.starts_with("pub(") && front.ends_with(" mod") => {
                Some(name)
            }
            _ => None,
        })
        .collect()
}
