//! Files from Debian's packages for the monitor's Linux and its guest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use doorbell_harness::apt::{self, Suite};
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::small_linux::{self, first_files, modules};
use doorbell_harness::workspace::Workspace;

/// Modules of the monitor's Linux.
const HOST_MODULES: &[&str] = &["tun.ko"];
/// Modules of the guest.
const GUEST_MODULES: &[&str] = &[
    "virtio_ring.ko",
    "virtio.ko",
    "virtio_pci_legacy_dev.ko",
    "virtio_pci_modern_dev.ko",
    "virtio_pci.ko",
    "failover.ko",
    "net_failover.ko",
    "virtio_net.ko",
];

/// The guest's first process, which prints its reports as lines that start with the process's name.
/// The process sends requests over a device until an answer arrives, at most `tries` times; the
/// device that must work gets more tries.
const GUEST: &str = r#"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc
for module in $($B cat /modules); do $B insmod /$module; done
for nic in 0 1; do
    $B ip addr add 10.0.$nic.2/24 dev eth$nic; $B ip link set eth$nic up
done
echo "guest: lines $($B grep -c MSI /proc/interrupts)"
ask() {
    answers=0
    for try in $($B seq $2); do
        $B ping -c 1 -W 2 10.0.$1.1 > /dev/null && answers=1 && break
    done
    interrupts=$($B awk -v name=virtio$1- '$0 ~ name { sum += $2 + $3 } END { print +sum }' \
        /proc/interrupts)
    echo "guest: nic $1 $answers answers $interrupts interrupts"
}
ask 0 30; ask 1 $tries
$B poweroff -f
"#;

/// The first process of the monitor's Linux. The kernel counts the system calls.
const HOST: &str = r#"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
$B mount -t tracefs trace /sys/kernel/tracing
console=$($B cat /sys/class/tty/console/active)
CALLS=/sys/kernel/tracing/events/syscalls/sys_enter_ioctl
for module in $($B cat /modules); do $B insmod /$module; done
for way in stock routed; do
    [ $way = stock ] && tries=5 || tries=30
    for nic in 0 1; do
        [ $nic = 0 ] && pairs=117 || pairs=3
        $B rm -f /tmp/$nic
        /adopter backend /tmp/$nic tap$nic 02:00:00:00:00:0$nic $pairs &
        until [ -e /tmp/$nic ]; do $B sleep 0.1; done
        until $B ip addr add 10.0.$nic.1/24 dev tap$nic; do $B sleep 0.1; done
        $B ip link set tap$nic up
    done
    echo "boot: $way"
    echo 'hist:keys=cmd' > $CALLS/trigger
    /adopter boot $way /kernel /initramfs "console=$console quiet panic=-1 tries=$tries" \
        /tmp/0 /tmp/1 < /dev/console
    echo "host: ended $?"
    $B sed -n 's/^{ cmd/host: ioctl { cmd/p' $CALLS/hist
    echo '!hist:keys=cmd' > $CALLS/trigger
done
$B poweroff -f
"#;

/// The kernel of both the monitor's Linux and the guest, and the initramfs of the monitor's Linux.
#[derive(Debug)]
pub(crate) struct Files {
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

impl Files {
    /// Fetches the packages into the cache, and packs each initramfs.
    pub(crate) fn of(workspace: &Workspace, program: &Path) -> Result<Self> {
        let packages = packages(workspace)?;
        let kernel = small_linux::kernel(&packages)?;
        let guest = first_files(&packages, GUEST, modules(&packages, GUEST_MODULES)?)?;
        let mut outer = first_files(&packages, HOST, modules(&packages, HOST_MODULES)?)?;
        outer.push(File { path: "adopter", content: Content::Program(fs::read(program)?) });
        outer.push(File { path: "kernel", content: Content::Data(fs::read(&kernel)?) });
        outer.push(File { path: "initramfs", content: Content::Data(initramfs::pack(&guest)) });
        let folder = workspace.target.join("adopters");
        fs::create_dir_all(&folder)?;
        let initramfs = folder.join("initramfs");
        fs::write(&initramfs, initramfs::pack(&outer))?;
        Ok(Self { kernel, initramfs })
    }
}

/// Returns the folder in the cache with the kernel, its modules and busybox.
fn packages(workspace: &Workspace) -> Result<PathBuf> {
    let suite = Suite::Stable;
    apt::cached(workspace, suite, "alioth-arm64", |apt, folder| {
        // A small kernel with KVM for virtual machines.
        let modules = HOST_MODULES.iter().chain(GUEST_MODULES);
        small_linux::unpack_kernel(apt, "linux-image-cloud-arm64:arm64", suite, modules, folder)?;
        apt.unpack_busybox("arm64", folder)
    })
}
