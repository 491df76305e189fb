//! Fetches files for the test guests from Debian packages.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use doorbell_harness::apt::Apt;
use doorbell_harness::qemu::Version;
use doorbell_harness::small_linux::{self, first_files};
use doorbell_harness::suite::{OrAbsent, Shared};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{cache, dtb, initramfs};

use crate::built;

/// Drivers of a virtio entropy source, a virtio network card and an NVMe controller behind PCI, in
/// the order of their dependencies. The guest decompresses compressed modules.
fn modules(version: Version) -> Vec<&'static str> {
    let (others, nvme): (&[_], &[_]) = match version {
        Version::Stable => (
            &[
                "virtio_pci_legacy_dev.ko",
                "virtio_pci_modern_dev.ko",
                "virtio_pci.ko",
                "virtio-rng.ko",
                "failover.ko",
                "net_failover.ko",
                "virtio_net.ko",
            ],
            small_linux::NVME,
        ),
        Version::Backports => (
            &["virtio-rng.ko.xz", "failover.ko.xz", "net_failover.ko.xz", "virtio_net.ko.xz"],
            &["nvme-auth.ko.xz", "nvme-core.ko.xz", "nvme.ko.xz"],
        ),
    };
    [others, nvme].concat()
}

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
        let busybox = busybox(workspace).context("busybox")?;
        let packages = kernel_with_modules(workspace, version)?;
        let kernel = small_linux::kernel(&packages)?;
        let modules = small_linux::modules(&packages, &modules(version))?;
        let folder = built::folder()?;
        let initrd = folder.join(format!("initramfs-{version:?}").to_lowercase());
        fs::write(&initrd, initramfs::pack(&first_files(&busybox, INIT, modules)?))?;
        Ok(Self { kernel, initrd })
    }
}

/// Fetches a suite's kernel into the cache.
pub(crate) fn kernel(version: Version) -> Result<PathBuf> {
    small_linux::kernel(&kernel_with_modules(workspace::this()?, version)?)
}

/// Returns the folder of busybox in the cache.
fn busybox(workspace: &Workspace) -> Result<PathBuf> {
    let folder = cache::folder(workspace).join("busybox");
    if !cache::is_filled(&folder) {
        let index = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || index.unpack_busybox("arm64", &folder))?;
    }
    Ok(folder)
}

/// Returns the folder of the kernel and its modules in the cache. Both come from one package,
/// because a module is only compatible with its own kernel.
fn kernel_with_modules(workspace: &Workspace, version: Version) -> Result<PathBuf> {
    let folder = cache::folder(workspace).join(format!("debian-{version:?}").to_lowercase());
    if !cache::is_filled(&folder) {
        let index = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || {
            let (suite, modules) = (version.suite(), modules(version));
            small_linux::unpack_kernel(&index, dtb::KERNEL, suite, &modules, &folder)
        })?;
    }
    Ok(folder)
}
