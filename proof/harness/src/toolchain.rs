//! The Rust toolchain that runs this program, with its targets and components.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::process;

/// The target that images are built for.
pub const BARE_TARGET: &str = "aarch64-unknown-none";
/// The target of a hypervisor that leaves the vector registers to its guests.
pub const SOFT_FLOAT_TARGET: &str = "aarch64-unknown-none-softfloat";
/// The target that KVM's judge is built for: static programs, linked without C tools.
pub const JUDGE_TARGET: &str = "aarch64-unknown-linux-musl";

/// Adds a target to a rustup toolchain that lacks it.
pub fn need_target(root: &Path, target: &str) -> Result<()> {
    let mut sysroot = process::command("rustc", root);
    let sysroot = process::capture(sysroot.args(["--print", "sysroot"]))?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).exists() {
        return Ok(());
    }
    add(root, "target", target)
}

/// Adds rustfmt or clippy to a rustup toolchain of the minimal profile.
pub fn need_component(root: &Path, name: &str) -> Result<()> {
    let subcommand = if name == "rustfmt" { "fmt" } else { name };
    if process::output(process::cargo(root).args([subcommand, "--version"]))?.status.success() {
        return Ok(());
    }
    add(root, "component", name)
}

/// Lets rustup add a target or a component.
fn add(root: &Path, kind: &str, name: &str) -> Result<()> {
    ensure!(
        process::exists("rustup"),
        "this Rust does not include {name}, and rustup is not installed to add it"
    );
    process::must(process::command("rustup", root).args([kind, "add", name]))
}
