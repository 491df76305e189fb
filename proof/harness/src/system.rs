//! Programs that the machine needs in addition to Rust, and their installation.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::process;

/// Returns the target that this toolchain builds for by default.
pub fn host_triple(root: &Path) -> Result<String> {
    let version = process::capture(process::command("rustc", root).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc does not report its host")
}

/// Makes sure that a C++ compiler for libFuzzer is present. Installs one if this user may do so.
pub fn need_cxx(root: &Path) -> Result<()> {
    if process::exists("c++") {
        return Ok(());
    }
    install(root, "g++").context("libFuzzer needs a C++ compiler; install the package g++")
}

/// Makes sure that Python's virtual environments work. Installs them if this user may do so.
pub fn need_venv(root: &Path) -> Result<()> {
    let mut python = process::command("python3", root);
    if process::capture(python.args(["-c", "import ensurepip, venv"])).is_ok() {
        return Ok(());
    }
    install(root, "python3-venv")
        .context("Python has no virtual environments; install the package python3-venv")
}

/// Installs a Debian package as root, or with `sudo` if it needs no password. Never removes a
/// package.
fn install(root: &Path, package: &str) -> Result<()> {
    ensure!(process::exists("apt-get"), "apt-get is not installed on this machine");
    let is_root = process::capture(process::command("id", root).arg("-u"))?.trim() == "0";
    ensure!(is_root || process::exists("sudo"), "this user is not root, and sudo is not installed");
    let run = |arguments: &[&str]| {
        let mut command = process::command(if is_root { "apt-get" } else { "sudo" }, root);
        let sudo: &[&str] = if is_root { &[] } else { &["-n", "apt-get"] };
        process::capture(
            command.args(sudo).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"),
        )
    };
    run(&["-qq", "update"])?;
    run(&["-qq", "-y", "--no-install-recommends", "--no-remove", "install", package]).map(drop)
}
