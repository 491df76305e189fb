//! Builds the program in `el2/foreign/hermit`, with Hermit from the registry.

use std::path::{Path, PathBuf};

use anyhow::Result;
use doorbell_harness::suite::{Absent, OrAbsent, Shared};
use doorbell_harness::toolchain::SOFT_FLOAT_TARGET;
use doorbell_harness::workspace;
use doorbell_harness::{image, process};

use crate::built;

const GUEST: &str = "el2/foreign/hermit";
const PROGRAM: &str = "hermit-guest";
/// The compiler for which this version of Hermit was written. Hermit uses unstable features that
/// later compilers do not have.
const TOOLCHAIN: &str = "nightly-2025-03-15";
/// Component with the standard library's sources. The compiler's release has no library for the
/// target, so the library is built from source.
const SOURCES: &str = "rust-src";

/// Returns the flat image, which the first call builds.
///
/// # Errors
/// Fails if the build fails, or with [`Absent`] if the toolchain or the registry is not available.
pub(super) fn flat() -> Result<&'static Path> {
    static IMAGE: Shared<PathBuf> = Shared::new();
    IMAGE.get(build).map(PathBuf::as_path)
}

fn build() -> Result<PathBuf> {
    let guest = workspace::this()?.root.join(GUEST);
    check_toolchain(&guest)?;
    process::capture(cargo(&guest).args(["fetch", "--locked"])).or_absent("Hermit")?;
    let folder = built::folder()?.join("hermit");
    let mut cargo = cargo(&guest);
    cargo.args(["rustc", "--release", "--locked", "--quiet", "--target", SOFT_FLOAT_TARGET]);
    cargo.args(["-Zbuild-std=core,alloc", "-Zbuild-std-features=compiler-builtins-mem"]);
    cargo.arg("--target-dir").arg(&folder).args(["--", "-C", "link-arg=-Timage.ld"]);
    // Hermit's log would contain escape sequences.
    process::must(cargo.env("NO_COLOR", "1"))?;
    let elf = folder.join(SOFT_FLOAT_TARGET).join("release").join(PROGRAM);
    let flat = folder.join("hermit.img");
    image::flatten(&elf, &flat)?;
    Ok(flat)
}

/// Checks for the toolchain without installing it.
fn check_toolchain(folder: &Path) -> Result<()> {
    let mut list = process::command("rustup", folder);
    list.args(["component", "list", "--installed", "--toolchain", TOOLCHAIN]);
    let installed = process::output(&mut list).ok().filter(|output| output.status.success());
    let installed = installed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if installed.is_some_and(|list| list.lines().any(|component| component == SOURCES)) {
        return Ok(());
    }
    let install = format!("rustup toolchain install {TOOLCHAIN} --profile minimal -c {SOURCES}");
    Err(Absent::new(format!("Hermit needs `{install}`")).into())
}

fn cargo(folder: &Path) -> std::process::Command {
    let mut cargo = process::command("cargo", folder);
    for variable in ["RUSTC", "RUSTDOC", "CARGO", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    cargo.arg(format!("+{TOOLCHAIN}"));
    cargo
}
