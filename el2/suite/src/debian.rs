//! Fetches files for the test guests from Debian packages.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use doorbell_harness::initramfs;
use doorbell_harness::qemu::Version;
use doorbell_harness::small_linux::{self, first_files};
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};

use crate::built;

/// Command line for the Linux guests.
pub(crate) const COMMAND_LINE: &str = "console=ttyAMA0 quiet panic=-1";
/// The guest's init process.
const INIT: &str = include_str!("debian/init.sh");

/// Number of reads from the entropy source on each vCPU in [`INIT`].
pub(crate) const READS: u64 = 100;

/// A kernel and an initial file system for it.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(crate) kernel: PathBuf,
    pub(crate) initrd: PathBuf,
}

/// Returns a Debian release's kernel with its file system.
pub(crate) fn guest(version: Version) -> Result<&'static Guest> {
    static GUESTS: [Shared<Guest>; 2] = [const { Shared::new() }; 2];
    let place = &GUESTS[usize::from(version == Version::Backports)];
    place.get(|| Guest::fetch(workspace::this()?, version).or_absent("Debian's kernel"))
}

impl Guest {
    /// Fetches a suite's kernel and busybox into the cache, and packs the file system.
    fn fetch(workspace: &Workspace, version: Version) -> Result<Self> {
        let busybox = small_linux::fetch_busybox(workspace).context("busybox")?;
        let packages = small_linux::fetch_with_modules(workspace, version)?;
        let kernel = small_linux::kernel(&packages)?;
        let modules = small_linux::pci_modules(version);
        let modules = small_linux::modules(&packages, &modules)?;
        let folder = built::folder()?;
        let initrd = folder.join(format!("initramfs-{version:?}").to_lowercase());
        fs::write(&initrd, initramfs::pack(&first_files(&busybox, INIT, modules)?))?;
        Ok(Self { kernel, initrd })
    }
}

/// Fetches a suite's kernel into the cache.
pub(crate) fn kernel(version: Version) -> Result<PathBuf> {
    small_linux::kernel(&small_linux::fetch_with_modules(workspace::this()?, version)?)
}
