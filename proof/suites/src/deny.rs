//! Runs cargo-deny, which checks licenses, sources, and banned or vulnerable dependencies of each
//! workspace against the rules in the root's `deny.toml`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Result, bail};
use doorbell_harness::suite::{Absent, Case, OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{cache, process};

/// Version that is installed into the cache if the machine has none.
const VERSION: &str = "0.20.2";
const CHECKS: [&str; 4] = ["licenses", "bans", "sources", ADVISORIES];
const ADVISORIES: &str = "advisories";
/// Prefix of cargo-deny's error when the database of advisories cannot be reached.
const UNREACHABLE: &str = "failed to fetch advisory database";

pub(crate) fn cases() -> Result<Vec<Case>> {
    let workspace = workspace::this()?;
    let of = |folder: PathBuf| {
        let manifest = folder.join("Cargo.toml");
        CHECKS.map(|check| {
            let name = format!("{}: {check}", workspace.relative(&manifest).display());
            let manifest = manifest.clone();
            Case::of(name, move || judge(&manifest, check))
        })
    };
    Ok(workspace.locked_folders()?.into_iter().flat_map(of).collect())
}

fn judge(manifest: &Path, check: &str) -> Result<()> {
    static PROGRAM: Shared<PathBuf> = Shared::new();
    /// Set once a case has found that the database cannot be reached, because each attempt takes
    /// long.
    static UNREACHED: AtomicBool = AtomicBool::new(false);
    let workspace = workspace::this()?;
    let program = PROGRAM.get(|| find_or_install(workspace).or_absent("cargo-deny"))?;
    if check == ADVISORIES && UNREACHED.load(Relaxed) {
        return Err(Absent::new(UNREACHABLE).into());
    }
    let mut deny = process::command(&program.to_string_lossy(), &workspace.root);
    deny.args(["--locked", "--config", "deny.toml", "--manifest-path"]).arg(manifest);
    let output = process::output(deny.args(["check", "--hide-inclusion-graph", check]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains(UNREACHABLE) {
        UNREACHED.store(true, Relaxed);
        return Err(Absent::new(UNREACHABLE).into());
    }
    if !output.status.success() {
        bail!("{}{said}", String::from_utf8_lossy(&output.stdout));
    }
    Ok(())
}

/// Returns the machine's own cargo-deny, or one in the cache.
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
    // The program runs for seconds, so optimizing it would take longer than it saves.
    cargo.arg("--config=profile.dev.debug=false");
    cargo
        .args([
            "install",
            "--quiet",
            "--debug",
            "--locked",
            "cargo-deny",
            "--version",
            VERSION,
            "--root",
        ])
        .arg(root);
    process::must(&mut cargo)
}
