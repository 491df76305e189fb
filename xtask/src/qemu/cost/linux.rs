//! Debian's kernel with an init program that reads from a disk: what the test bench is compared
//! with.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::apt::{Apt, Suite};
use crate::workspace::Workspace;
use crate::{cache, dtb, initramfs, small_linux};

/// Reads once for work that is done only once, and sixteen times for the log.
const INIT: &str = r#"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in $($B cat /modules); do $B insmod /$module; done
while [ ! -e /dev/nvme0n1 ]; do $B sleep 0.1; done
$B dd if=/dev/nvme0n1 of=/dev/null bs=4k count=2 iflag=direct
echo "cost: ready $($B grep ' nvme_irq[[:space:]]' /proc/kallsyms)"
read line
$B dd if=/dev/nvme0n1 of=/dev/null bs=4k count=16 skip=4 iflag=direct
echo "cost: done"
$B poweroff -f
"#;

/// The kernel and its first file system.
#[derive(Debug)]
pub(in crate::qemu) struct Linux {
    pub(in crate::qemu) kernel: PathBuf,
    pub(in crate::qemu) initrd: PathBuf,
    /// As its file is called.
    pub(in crate::qemu) name: String,
}

impl Linux {
    /// Fetches the release's kernel into the cache.
    pub(in crate::qemu) fn fetch(workspace: &Workspace) -> Result<Self> {
        let folder = cache::folder(workspace).join("linux");
        if !cache::is_filled(&folder) {
            let apt = Apt::update(&cache::folder(workspace).join("apt"))?;
            cache::fill(&folder, || fill(&apt, &folder))?;
        }
        let kernel = small_linux::kernel(&folder)?;
        let name = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { kernel, initrd: folder.join("initrd"), name })
    }
}

fn fill(apt: &Apt, folder: &Path) -> Result<()> {
    small_linux::unpack_kernel(apt, dtb::KERNEL, Suite::Stable, small_linux::NVME, folder)?;
    apt.unpack_busybox("arm64", folder)?;
    let files =
        small_linux::first_files(folder, INIT, small_linux::modules(folder, small_linux::NVME)?)?;
    fs::write(folder.join("initrd"), initramfs::pack(&files)).map_err(Into::into)
}
