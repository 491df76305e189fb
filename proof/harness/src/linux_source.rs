//! Parts of the source of Debian's newest kernel: drivers whose facts the suites check.

use std::fs;
use std::path::PathBuf;

use anyhow::Result;

use crate::apt::{Apt, Suite};
use crate::workspace::Workspace;
use crate::{cache, process};

/// The metapackage of the kernel's source.
const PACKAGE: &str = "linux-source";
/// Folders that are kept.
const PARTS: [&str; 4] = ["drivers/acpi/arm64", "drivers/irqchip", "drivers/of", "drivers/pci"];

/// Fetches the source of Debian's newest kernel, unless the cache has it. Returns the kernel's
/// version and the root of its source, which contains `drivers/{acpi/arm64,irqchip,of,pci}`.
///
/// # Errors
/// Fails if the package cannot be fetched.
pub fn fetch(workspace: &Workspace) -> Result<(String, PathBuf)> {
    let apt = Apt::of(workspace, Suite::Unstable)?;
    let version = apt.newest(PACKAGE, Suite::Unstable)?;
    let folder = cache::folder(workspace).join(PACKAGE);
    cache::fill_version(&folder, &version, || {
        let package = apt.kernel(PACKAGE, Suite::Unstable)?;
        apt.unpack(&package, &["./usr/src/*.tar.xz"], &folder)?;
        for archive in cache::files_below(&folder.join("usr/src"))? {
            let mut tar = process::command("tar", &folder);
            tar.arg("-xJf").arg(archive).args(["--wildcards", "--no-wildcards-match-slash"]);
            tar.arg("--strip-components=1").args(PARTS.map(|part| format!("*/{part}")));
            process::capture(&mut tar)?;
        }
        fs::remove_dir_all(folder.join("usr")).map_err(Into::into)
    })?;
    Ok((version, folder))
}
