//! Copies of the sources in which faults are planted.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use doorbell_harness::workspace::Workspace;

use super::Mutant;

/// The packages' faults, with their numbers.
pub(crate) type Faults = Vec<(&'static str, Vec<(usize, Mutant)>)>;

/// Plants all faults in a copy of the sources, and returns the folder of the copy. A package's
/// [`variable`](super::variable) selects one of its faults. The copy is in this folder of the
/// target directory, where it remains for the next run, which builds only what has changed.
///
/// # Errors
/// Fails if a fault does not fit the sources, or if files cannot be read or written.
pub(crate) fn plant(workspace: &Workspace, name: &str, faults: &Faults) -> Result<PathBuf> {
    let copy = workspace.target.join(name);
    let mut changed = BTreeMap::new();
    for (package, faults) in faults {
        let folder = folder(workspace, package)?;
        let manifest = folder.join("Cargo.toml");
        changed.insert(manifest.clone(), without_itself(package, &read(&manifest)?));
        let root = folder.join("src/lib.rs");
        changed.insert(root.clone(), read(&root)? + &super::selector(package));
        let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (number, fault) in faults {
            files.entry(folder.join(&fault.file)).or_default().push((*number, fault));
        }
        for (file, faults) in files {
            let planted = super::plant(&read(&file)?, &faults)?;
            changed.insert(file, planted);
        }
    }
    fs::create_dir_all(&copy)?;
    for part in parts(workspace) {
        mirror(&workspace.root.join(part), &copy.join(part), &changed)?;
    }
    Ok(copy)
}

/// Removes a package's dependency on itself from its manifest. The dependency only enables features
/// for the package's integration tests, but makes cargo compile the package twice.
fn without_itself(package: &str, manifest: &str) -> String {
    let own = format!("{package} = {{ path = \".\"");
    manifest.split_inclusive('\n').filter(|line| !line.starts_with(&own)).collect()
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}

/// Returns a package's folder.
///
/// # Errors
/// Fails if the workspace has no such package.
pub(crate) fn folder<'a>(workspace: &'a Workspace, package: &str) -> Result<&'a Path> {
    let found = workspace.packages.iter().find(|candidate| candidate.name == package);
    found
        .map(|package| &*package.folder)
        .with_context(|| format!("the workspace has no package {package}"))
}

/// Returns the files and top folders that make up the root's workspace.
fn parts(workspace: &Workspace) -> BTreeSet<&OsStr> {
    let members = workspace.packages.iter().filter(|package| package.hosted);
    let folders = members.filter_map(|package| workspace.relative(&package.folder).iter().next());
    ["Cargo.toml", "Cargo.lock"].into_iter().map(OsStr::new).chain(folders).collect()
}

/// Makes `to` a copy of `from`, in which the `changed` files have these contents. Does not touch
/// files that are already correct, so that cargo considers their artifacts up to date.
fn mirror(from: &Path, to: &Path, changed: &BTreeMap<PathBuf, String>) -> Result<()> {
    if !from.is_dir() {
        let contents = match changed.get(from) {
            Some(text) => text.clone().into_bytes(),
            None => fs::read(from).with_context(|| format!("cannot read {}", from.display()))?,
        };
        if fs::read(to).ok().as_ref() != Some(&contents) {
            fs::write(to, contents).with_context(|| format!("cannot write {}", to.display()))?;
        }
        return Ok(());
    }
    fs::create_dir_all(to)?;
    for entry in to.read_dir()? {
        let entry = entry?;
        if !from.join(entry.file_name()).exists() {
            let path = entry.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    for entry in from.read_dir()? {
        let name = entry?.file_name();
        if name != "target" && name != "corpus" {
            mirror(&from.join(&name), &to.join(&name), changed)?;
        }
    }
    Ok(())
}
