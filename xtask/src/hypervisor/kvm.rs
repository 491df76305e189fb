//! `el2/microbench` as a guest of Linux's KVM, on the QEMU that counts instructions: what the
//! hypervisor's costs are compared with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::costs::{Costs, DEVICE};
use super::microbench::{COUNTED, EACH, Microbench, SHARED, VERSION};
use super::{COMMAND_LINE, CONFINED, GICV3, SURROUNDINGS};
use crate::apt::Apt;
use crate::initramfs::{self, Content, File};
use crate::qemu::{self, Version};
use crate::workspace::Workspace;
use crate::{cache, dtb, process, small_linux};
use doorbell_harness::image::Image;

/// Instructions of each operation and exits of all its turns, under Debian 12's Linux 6.1.
/// `cargo xtask hypervisor --cost` measures them anew (docs/measurements.md).
pub(super) const KVM: &[(&str, u64, u64)] = &[
    ("hypercall", 1_127, 202),
    ("register", 1_905, 202),
    ("ipi", 4_708, 402),
    ("lpi", 6_185, 402),
    ("msi", 3_332, 202),
];
/// Likewise, for vCPUs that share a CPU.
pub(super) const KVM_SHARED: &[(&str, u64, u64)] = &[
    ("hypercall", 1_127, 202),
    ("register", 1_905, 202),
    ("ipi", 15_611, 402),
    ("lpi", 6_185, 402),
    ("msi", 3_332, 202),
];

/// A run takes 4 seconds, on a busy machine a minute; what takes longer hangs.
const LIMIT: Duration = Duration::from_mins(5);
/// Linux's, the guest's among it.
const MEMORY: &str = "512M";
/// In the order in which they need each other.
const MODULES: &[&str] =
    &["vfio.ko", "vfio_virqfd.ko", "vfio_iommu_type1.ko", "vfio-pci-core.ko", "vfio-pci.ko"];

/// The device's interrupt goes to the CPU of the vCPU that takes its message.
const INIT: &str = r#"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
$B mount -t debugfs debug /sys/kernel/debug
for module in $($B cat /modules); do $B insmod /$module; done
echo 1 > /proc/irq/default_smp_affinity
echo 1234 11e8 > /sys/bus/pci/drivers/vfio-pci/new_id
/kvm-monitor /guest /sys/bus/pci/drivers/vfio-pci/0000:*
echo "monitor: ended $?"
$B poweroff -f
"#;
/// The guest has turned its machine off.
const ENDED: &str = "monitor: ended 0";

/// Measures both, and prints them beside the record.
pub(super) fn compare(workspace: &Workspace) -> Result<ExitCode> {
    let hypervisor = Image::build(workspace, "hypervisor", "hypervisor")?;
    let tools = qemu::fetch(workspace, VERSION)?;
    let microbench = Microbench::build(workspace, &hypervisor, tools)?;
    for (cpus, record) in [(EACH, KVM), (SHARED, KVM_SHARED)] {
        println!("2 vCPUs on {cpus} CPUs");
        println!("the hypervisor: {}", microbench.costs(cpus)?);
        println!("Linux's KVM:    {}", measure(workspace, &microbench, cpus)?);
        println!("on record:      {}", Costs::recorded(record));
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(workspace: &Workspace, microbench: &Microbench<'_>, cpus: u8) -> Result<Costs> {
    let mut qemu = command(workspace, microbench, cpus)?;
    let (mut costs, mut last, mut ended) = (Costs::default(), String::new(), false);
    process::watch(&mut qemu, LIMIT, |line| {
        costs.line(line);
        line.trim_end().clone_into(&mut last);
        ended |= last == ENDED;
    })?;
    ensure!(ended, "the guest did not turn its machine off; the last line is `{last}`");
    Ok(costs)
}

/// QEMU with Linux at EL2, the monitor and its guest, and the device behind an SMMU.
fn command(workspace: &Workspace, microbench: &Microbench<'_>, cpus: u8) -> Result<Command> {
    let (kernel, initrd) = linux(workspace, &microbench.guest.flat)?;
    let mut qemu = microbench.tools.command(qemu::PROGRAM);
    qemu.args(GICV3.arguments()).args(CONFINED).args(SURROUNDINGS).args(COUNTED);
    qemu.args(["-smp", &cpus.to_string(), "-m", MEMORY, "-append", COMMAND_LINE]);
    qemu.args(["-device", DEVICE]).arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    Ok(qemu)
}

/// The release's kernel, and a first file system with the monitor and its guest.
fn linux(workspace: &Workspace, guest: &Path) -> Result<(PathBuf, PathBuf)> {
    let packages = cache::folder(workspace).join("vfio-stable");
    if !cache::is_filled(&packages) {
        let apt = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&packages, || {
            let suite = Version::Stable.suite();
            small_linux::unpack_kernel(&apt, dtb::KERNEL, suite, MODULES, &packages)?;
            apt.unpack_busybox("arm64", &packages)
        })?;
    }
    let modules = small_linux::modules(&packages, MODULES)?;
    let mut files = small_linux::first_files(&packages, INIT, modules)?;
    let monitor = small_linux::build_program(workspace, "kvm-monitor").context("the monitor")?;
    files.push(File { path: "kvm-monitor", content: Content::Program(fs::read(monitor)?) });
    files.push(File { path: "guest", content: Content::Data(fs::read(guest)?) });
    let initrd = super::folder(workspace)?.join("initramfs-kvm");
    fs::write(&initrd, initramfs::pack(&files))?;
    Ok((small_linux::kernel(&packages)?, initrd))
}
