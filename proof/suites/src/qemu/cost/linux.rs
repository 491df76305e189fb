//! Debian's kernel with an init program that reads from a disk, for comparison with the test bench.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use doorbell_harness::apt::{self, Suite};
use doorbell_harness::workspace::Workspace;
use doorbell_harness::{dtb, initramfs, small_linux};

/// Init program. Reads once, so that one-time work isn't measured, and then sixteen times for the
/// log.
const INIT: &str = r#"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in $($B cat /modules); do $B insmod /$module; done
while [ ! -e /dev/nvme0n1 ]; do $B sleep 0.1; done
$B dd if=/dev/nvme0n1 of=/dev/null bs=4k count=2 iflag=direct
H=$($B grep ' nvme_irq[[:space:]]' /proc/kallsyms)
echo "{\"watched\":{\"ready\":{\"handler\":\"${H%% *}\"}}}"
read line
$B dd if=/dev/nvme0n1 of=/dev/null bs=4k count=16 skip=4 iflag=direct
echo '{"watched":"done"}'
$B poweroff -f
"#;

/// The kernel and its initramfs.
#[derive(Debug)]
pub(crate) struct Linux {
    /// The kernel.
    pub(crate) kernel: PathBuf,
    /// The initramfs.
    pub(crate) initrd: PathBuf,
    /// File name of the kernel.
    pub(crate) name: String,
}

impl Linux {
    /// Fetches the release's kernel into the cache, and packs its initramfs.
    pub(crate) fn fetch(workspace: &Workspace) -> Result<Self> {
        let suite = Suite::Stable;
        let folder = apt::cached(workspace, suite, "linux", |apt, folder| {
            small_linux::unpack_kernel(apt, dtb::KERNEL, suite, small_linux::NVME, folder)?;
            apt.unpack_busybox("arm64", folder)
        })?;
        let kernel = small_linux::kernel(&folder)?;
        let name = kernel.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { kernel, initrd: pack(workspace, &folder)?, name })
    }
}

fn pack(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let modules = small_linux::modules(folder, small_linux::NVME)?;
    let files = small_linux::first_files(folder, INIT, modules)?;
    let output = workspace.target.join("qemu");
    fs::create_dir_all(&output)?;
    let initrd = output.join("initrd");
    fs::write(&initrd, initramfs::pack(&files))?;
    Ok(initrd)
}
