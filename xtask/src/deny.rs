//! cargo-deny: licences, sources, banned and vulnerable dependencies, by the rules in `deny.toml`.

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{cache, process};

/// Version that is installed into the cache if the machine has none.
const VERSION: &str = "0.20.2";
/// The workspaces: each has a lock file of its own, and all are judged by the root's `deny.toml`.
const MANIFESTS: [&str; 6] = [
    "Cargo.toml",
    "images/Cargo.toml",
    "el2/Cargo.toml",
    "proof/fuzz/Cargo.toml",
    "peers/arm-vgic/Cargo.toml",
    "adopters/alioth/Cargo.toml",
];
const CHECKS: [&str; 4] = ["licenses", "bans", "sources", "advisories"];
/// Prefix of cargo-deny's error that the database of advisories cannot be reached.
const UNREACHABLE: &str = "failed to fetch advisory database";

/// Each check of each workspace counted as one case.
pub(crate) fn run(workspace: &Workspace, tally: &mut Tally) -> Result<()> {
    let program = match find_or_install(workspace) {
        Ok(program) => program,
        Err(absent) => {
            tally.skip(format!("cargo-deny cannot be had: {absent:#}"));
            return Ok(());
        }
    };
    for check in CHECKS {
        for manifest in MANIFESTS {
            println!("{manifest}: {check}");
            let mut deny = process::command(&program.to_string_lossy(), &workspace.root);
            deny.args(["--locked", "--manifest-path", manifest]);
            let output = process::output(deny.args(["check", "--hide-inclusion-graph", check]))?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            print!("{}{said}", String::from_utf8_lossy(&output.stdout));
            if said.contains(UNREACHABLE) {
                tally.skip(format!("{check}: {UNREACHABLE}"));
                break;
            }
            tally.case(&format!("{manifest}: {check}"), failed(output.status.success()));
        }
    }
    Ok(())
}

fn failed(success: bool) -> Result<()> {
    ensure!(success, "see above");
    Ok(())
}

/// The machine's own cargo-deny, or one in the cache.
fn find_or_install(workspace: &Workspace) -> Result<PathBuf> {
    if process::exists("cargo-deny") {
        return Ok("cargo-deny".into());
    }
    let root = cache::folder(workspace).join(format!("cargo-deny-{VERSION}"));
    cache::fill(&root, || install(&workspace.root, &root))?;
    Ok(root.join("bin/cargo-deny"))
}

fn install(workspace: &Path, root: &Path) -> Result<()> {
    let mut cargo = process::cargo(workspace);
    cargo
        .args(["install", "--quiet", "--locked", "cargo-deny", "--version", VERSION, "--root"])
        .arg(root);
    process::must(&mut cargo)
}
