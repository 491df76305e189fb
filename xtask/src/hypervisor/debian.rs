//! Debian's packages as the files of the test's guests.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::apt::Apt;
use crate::initramfs::{self, File};
use crate::qemu::Version;
use crate::small_linux::{self, first_files};
use crate::workspace::Workspace;
use crate::{cache, dtb, kvm};

/// Drivers of a virtio source of random bytes behind PCI, in the order in which they need each
/// other. The newer kernel's are compressed, which the guest's user space cannot load.
const MODULES: &[&str] =
    &["virtio_pci_legacy_dev.ko", "virtio_pci_modern_dev.ko", "virtio_pci.ko", "virtio-rng.ko"];

/// The guest's first process: it reports in lines that begin with its name.
const INIT: &str = r#"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
$B dmesg | $B grep -e ITS -e MBI -e GICv2m | $B sed 's/^/guest: controller /'
echo "guest: cpus $($B nproc)"
echo "guest: listens"
read line
echo "guest: heard $line"
$B devmem 0x0a000000 32
echo "guest: absent device $?"
for cpu in /sys/devices/system/cpu/cpu[1-9]; do
    [ -e $cpu/online ] && echo 0 > $cpu/online && echo 1 > $cpu/online
done
echo "guest: cpus again $($B nproc)"
if $B grep -q waits /proc/cmdline; then
    echo "guest: listens"
    read line
    echo "guest: again heard $line"
fi
if $B grep -q waits /proc/cmdline; then
    echo "guest: listens"
    read line
    echo "guest: again heard $line"
fi
for module in $($B cat /modules); do $B insmod /$module; done
irq=$($B sed -n 's/^ *\([0-9]*\):.*virtio0-input.*/\1/p' /proc/interrupts)
for cpu in $($B seq 0 $(($($B nproc) - 1))); do
    [ "$irq" ] && echo $cpu > /proc/irq/$irq/smp_affinity_list &&
        $B dd if=/dev/hwrng of=/dev/null bs=64 count=100
done
$B sed 's/^/guest: row /' /proc/interrupts
$B poweroff -f
"#;

/// Reads of the device on each vCPU, in [`INIT`].
pub(super) const READS: u64 = 100;

/// A kernel, and a first file system for it.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) kernel: PathBuf,
    pub(super) initrd: PathBuf,
    /// It has the drivers of a virtio source of random bytes.
    pub(super) has_drivers: bool,
}

impl Guest {
    /// Fetches a suite's kernel and busybox into the cache, and packs the file system.
    pub(super) fn fetch(workspace: &Workspace, version: Version) -> Result<Self> {
        let busybox = busybox(workspace).context("busybox")?;
        let (kernel, modules) = match version {
            Version::Stable => kernel_with_modules(workspace)?,
            Version::Backports => (kvm::kernel(workspace, version)?, Vec::new()),
        };
        let has_drivers = !modules.is_empty();
        let folder = super::folder(workspace)?;
        let initrd = folder.join(format!("initramfs-{version:?}").to_lowercase());
        fs::write(&initrd, initramfs::pack(&first_files(&busybox, INIT, modules)?))?;
        Ok(Self { kernel, initrd, has_drivers })
    }
}

/// The folder of busybox in the cache.
fn busybox(workspace: &Workspace) -> Result<PathBuf> {
    let folder = cache::folder(workspace).join("busybox");
    if !cache::is_filled(&folder) {
        let index = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || index.unpack_busybox("arm64", &folder))?;
    }
    Ok(folder)
}

/// From one package: a module only fits its own kernel.
fn kernel_with_modules(workspace: &Workspace) -> Result<(PathBuf, Vec<File>)> {
    let folder = cache::folder(workspace).join("guest-stable");
    if !cache::is_filled(&folder) {
        let index = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || {
            let suite = Version::Stable.suite();
            small_linux::unpack_kernel(&index, dtb::KERNEL, suite, MODULES, &folder)
        })?;
    }
    Ok((small_linux::kernel(&folder)?, small_linux::modules(&folder, MODULES)?))
}
