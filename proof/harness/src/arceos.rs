//! Builds ArceOS with the program in `adopters/arceos`, either with its own interrupt drivers or
//! with ours.
//!
//! Ours need a patched `somehal`, which is assembled below the target folder: the registry's
//! archive, our files that replace or accompany its drivers, and a dependency on `gic-driver`.

mod disk;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::image::Image;
use crate::process;
use crate::suite::{Shared, is_long};
use crate::toolchain::{SOFT_FLOAT_TARGET, cargo_of, find_other};
use crate::workspace::Workspace;

pub use self::disk::{checksum_line, disk, input};

/// ArceOS uses unstable features of the compiler.
const TOOLCHAIN: &str = "nightly-2026-07-15";
const PACKAGE: &str = "somehal";
/// The folder in the archive that our files are copied to.
const DRIVERS: &str = "src/arch/aarch64/gic";
const PROGRAM: &str = "arceos-adopter";

/// The interrupt drivers that ArceOS is built with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drivers {
    /// The drivers of `somehal`: ArceOS is unmodified.
    Stock,
    /// The drivers of `adopters/arceos`, which call `gic-driver`.
    Ours,
}

/// Returns ArceOS's program. The first call builds it.
///
/// # Errors
/// Fails if the toolchain is absent, which is a reason to skip a case, or if the build fails.
pub fn image(workspace: &Workspace, drivers: Drivers) -> Result<&'static Image> {
    static STOCK: Shared<Image> = Shared::new();
    static OURS: Shared<Image> = Shared::new();
    let image = if drivers == Drivers::Stock { &STOCK } else { &OURS };
    image.get(|| build(workspace, drivers))
}

fn build(workspace: &Workspace, drivers: Drivers) -> Result<Image> {
    find_other(&workspace.root, TOOLCHAIN, "target", SOFT_FLOAT_TARGET)?;
    let adopter = workspace.root.join("adopters/arceos");
    let folder = workspace.target.join("adopters/arceos").join(match drivers {
        Drivers::Stock => "stock",
        Drivers::Ours => "ours",
    });
    empty(&folder)?;
    copy(&adopter, &folder)?;
    if drivers == Drivers::Ours {
        let package = patched(workspace, &adopter)?.display().to_string();
        let table = format!("\n[patch.crates-io]\n{PACKAGE} = {{ path = {package:?} }}\n");
        append(&folder.join("Cargo.toml"), &table)?;
    }
    let target = workspace.target.join("adopters/arceos/target");
    let mut cargo = cargo_of(TOOLCHAIN, &folder);
    cargo.args(["build", "--release", "--quiet", "--target-dir"]).arg(&target);
    // The committed lock file does not contain the patched package and its dependencies.
    cargo.args((drivers == Drivers::Stock).then_some("--locked"));
    if !is_long() {
        // The build takes longer than the runs.
        cargo.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
    }
    process::must(&mut cargo)?;
    // The next build overwrites the program.
    let elf = folder.join("arceos.elf");
    fs::copy(target.join(SOFT_FLOAT_TARGET).join("release").join(PROGRAM), &elf)
        .context("cannot copy ArceOS's program")?;
    Image::of(elf)
}

/// Assembles the patched package and returns its folder.
fn patched(workspace: &Workspace, adopter: &Path) -> Result<PathBuf> {
    let (archive, name) = archive(adopter)?;
    let folder = workspace.target.join("adopters/arceos/patched");
    empty(&folder)?;
    let mut tar = process::command("tar", &folder);
    process::must(tar.arg("-xzf").arg(&archive))?;
    let package = folder.join(name);
    copy(&adopter.join(PACKAGE), &package.join(DRIVERS))?;
    let driver = workspace.root.join("crates/gic-driver").display().to_string();
    let table = "target.'cfg(target_arch = \"aarch64\")'.dependencies.gic-driver";
    let dependency = format!("\n[{table}]\npath = {driver:?}\n");
    append(&package.join("Cargo.toml"), &dependency)?;
    Ok(package)
}

/// Returns the registry's archive of the package, and the name of the folder in it. Checks the
/// archive's hash.
fn archive(adopter: &Path) -> Result<(PathBuf, String)> {
    let mut metadata = cargo_of(TOOLCHAIN, adopter);
    metadata.args(["metadata", "--format-version", "1", "--locked"]);
    let metadata: Value = serde_json::from_str(&process::capture(&mut metadata)?)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    let manifest = packages.iter().find(|package| package["name"] == PACKAGE);
    let manifest = manifest.and_then(|package| package["manifest_path"].as_str());
    // `registry/src/INDEX/NAME/Cargo.toml` was unpacked from `registry/cache/INDEX/NAME.crate`.
    let manifest = Path::new(manifest.with_context(|| format!("no {PACKAGE}"))?);
    let components: Vec<_> = manifest.iter().collect();
    let [registry @ .., _, index, name, _] = &components[..] else {
        anyhow::bail!("{} is not in a registry", manifest.display());
    };
    let name = name.to_string_lossy().into_owned();
    let cache = registry.iter().collect::<PathBuf>().join("cache").join(index);
    let archive = cache.join(format!("{name}.crate"));
    let sum = process::capture(process::command("sha256sum", adopter).arg(&archive))?;
    let expected = checksum(&fs::read_to_string(adopter.join("Cargo.lock"))?)?;
    ensure!(sum.starts_with(&expected), "{} has the wrong hash", archive.display());
    Ok((archive, name))
}

/// Returns the package's hash in a lock file.
fn checksum(lock: &str) -> Result<String> {
    let package = lock
        .split("[[package]]")
        .find(|package| package.lines().any(|line| line == format!("name = \"{PACKAGE}\"")));
    let sum = package.and_then(|package| package.split("checksum = \"").nth(1));
    let sum = sum.and_then(|rest| rest.split('"').next());
    Ok(sum.context("the lock file has no checksum")?.to_owned())
}

fn append(file: &Path, text: &str) -> Result<()> {
    let whole = fs::read_to_string(file)? + text;
    fs::write(file, whole).with_context(|| format!("cannot write {}", file.display()))
}

/// Creates an empty folder.
fn empty(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))
}

/// Copies the contents of a folder. Preserves modification times, from which cargo recognizes
/// unchanged files.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let mut copy = process::command("cp", from);
    process::must(copy.args(["-a", "."]).arg(to))
}
