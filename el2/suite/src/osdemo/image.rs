//! Builds osdemo from the registry, unmodified, in the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::toolchain::{SOFT_FLOAT_TARGET, need_target};
use doorbell_harness::workspace;
use doorbell_harness::{image, process};

use crate::built;

/// The package whose lock file pins the version.
const LOCK: &str = "el2/foreign/osdemo";
const PACKAGE: &str = "osdemo-0.1.3";

/// Returns the flat image, which the first call builds.
///
/// # Errors
/// Fails if the build fails, or with `Absent` if the registry is not available.
pub(super) fn flat() -> Result<&'static Path> {
    static IMAGE: Shared<PathBuf> = Shared::new();
    IMAGE.get(build).map(PathBuf::as_path)
}

fn build() -> Result<PathBuf> {
    let workspace = workspace::this()?;
    need_target(&workspace.root, SOFT_FLOAT_TARGET)?;
    let folder = built::folder()?.join("osdemo");
    fs::create_dir_all(&folder)?;
    // Another run of the suite must not replace the sources meanwhile. Dropping the file releases
    // the lock.
    let lock = File::create(folder.with_added_extension("lock"))?;
    lock.lock()?;
    let sources = folder.join("vendor");
    // `cargo vendor` keeps the files of an existing package.
    if sources.exists() {
        fs::remove_dir_all(&sources).context("cannot remove the sources of the last run")?;
    }
    let mut vendor = process::cargo(&workspace.root.join(LOCK));
    vendor.args(["vendor", "--locked", "--versioned-dirs"]).arg(&sources);
    process::capture(&mut vendor).or_absent(PACKAGE)?;

    let package = sources.join(PACKAGE);
    // Otherwise, the package would have to be a member of this project's workspace.
    let manifest = package.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).context("cannot read the manifest")?;
    fs::write(&manifest, text + "\n[workspace]\n")?;

    let mut fetch = process::cargo(&package);
    process::capture(fetch.args(["fetch", "--locked"])).or_absent(PACKAGE)?;

    let target = folder.join("target");
    let mut cargo = process::cargo(&package);
    cargo.args(["build", "--release", "--locked", "--quiet", "--target", SOFT_FLOAT_TARGET]);
    cargo.arg("--target-dir").arg(&target);
    // Optimizing this kernel takes longer than running it.
    cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    cargo.env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.env("RUSTFLAGS", "--cfg platform=\"qemu\"");
    process::capture(&mut cargo)?;
    let elf = target.join(SOFT_FLOAT_TARGET).join("release/osdemo");
    let flat = folder.join("osdemo.img");
    image::flatten(&elf, &flat)?;
    Ok(flat)
}
