//! QEMUs with their firmware, and the devicetree compiler, shared by several cases. The first case
//! that needs one unpacks it.

use std::path::{Path, PathBuf};

use anyhow::Result;
use doorbell_harness::apt::{self, Suite};
use doorbell_harness::dtb::{Tools, Tree};
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};

/// Returns one of Debian's QEMUs.
pub(crate) fn qemu(version: Version) -> Result<&'static Tools> {
    static STABLE: Shared<Tools> = Shared::new();
    static BACKPORTS: Shared<Tools> = Shared::new();
    let shared = match version {
        Version::Stable => &STABLE,
        Version::Backports => &BACKPORTS,
    };
    shared.get(|| qemu::fetch(workspace::this()?, version).or_absent("QEMU"))
}

/// Returns UEFI firmware for QEMU's `virt`.
pub(crate) fn uefi() -> Result<&'static Path> {
    static UEFI: Shared<PathBuf> = Shared::new();
    let fetched = UEFI.get(|| unpack_uefi(workspace::this()?).or_absent("UEFI firmware"));
    fetched.map(PathBuf::as_path)
}

/// Unpacks UEFI firmware into the cache.
fn unpack_uefi(workspace: &Workspace) -> Result<PathBuf> {
    const FILE: &str = "usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
    let folder = apt::cached(workspace, Suite::Stable, "efi", |apt, folder| {
        let version = apt.newest("qemu-efi-aarch64", Suite::Stable)?;
        apt.unpack(&format!("qemu-efi-aarch64={version}"), &[&format!("./{FILE}")], folder)
    });
    Ok(folder?.join(FILE))
}

/// Returns the devicetree compiler and its tools.
pub(crate) fn compiler() -> Result<&'static Tools> {
    static TOOLS: Shared<Tools> = Shared::new();
    TOOLS.get(|| {
        let workspace = workspace::this()?;
        Tree::Qemu.fetched(workspace)?;
        Ok(Tools::of(workspace))
    })
}
