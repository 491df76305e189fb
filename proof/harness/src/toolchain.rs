//! The Rust toolchain that runs this program, with its targets and components, and the toolchains
//! that other projects' programs need.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::process;
use crate::suite::Absent;

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

/// Checks for a target or a component (`kind`) of another toolchain without installing it.
///
/// # Errors
/// Fails with [`Absent`], which states the command that installs it.
pub fn find_other(folder: &Path, toolchain: &str, kind: &str, name: &str) -> Result<()> {
    let mut list = process::command("rustup", folder);
    list.args([kind, "list", "--installed", "--toolchain", toolchain]);
    let installed = process::output(&mut list).ok().filter(|output| output.status.success());
    let installed = installed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    if installed.is_some_and(|list| list.lines().any(|part| part == name)) {
        return Ok(());
    }
    let install = format!("rustup toolchain install {toolchain} --profile minimal --{kind} {name}");
    Err(Absent::new(format!("it needs `{install}`")).into())
}

/// Returns a cargo command of another toolchain.
pub fn cargo_of(toolchain: &str, folder: &Path) -> Command {
    let mut cargo = process::command("cargo", folder);
    for variable in ["RUSTC", "RUSTDOC", "CARGO", "RUSTUP_TOOLCHAIN", "RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    cargo.arg(format!("+{toolchain}"));
    cargo
}
