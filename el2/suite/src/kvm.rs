//! Runs a guest (`el2/microbench` or a program of kvm-unit-tests) under KVM, on the QEMU version
//! that counts instructions. The results are the baseline for the hypervisor's costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use doorbell_facts::{Fact, MonitorFact};
use doorbell_harness::apt::Apt;
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::toolchain::{self, JUDGE_TARGET};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{cache, dtb, process, small_linux};

use crate::board::{CONFINED, COUNTED, COUNTING, SURROUNDINGS};
use crate::built;
use crate::costs::Costs;
use crate::debian::COMMAND_LINE;
use crate::machine::GICV3;
use crate::microbench::{self, DEVICE, EACH, SHARED};

/// Instructions of each operation and exits of all its repetitions, on Debian 12's Linux 6.1.
/// `cargo xtask hypervisor --cost` repeats the measurement (docs/measurements.md).
pub(crate) const KVM: &[(&str, u64, u64)] = &[
    ("hypercall", 1_127, 202),
    ("register", 1_905, 202),
    ("eoi", 2, 2),
    ("ipi", 4_708, 402),
    ("lpi", 6_185, 402),
    ("invall", 4_112, 402),
    ("msi", 3_332, 202),
    ("timer", 2_531, 206),
];
/// Costs of the operations while both vCPUs share a CPU.
pub(crate) const KVM_SHARED: &[(&str, u64, u64)] = &[
    ("hypercall", 1_127, 202),
    ("register", 1_905, 202),
    ("eoi", 3, 2),
    ("ipi", 15_611, 402),
    ("lpi", 6_185, 402),
    ("invall", 4_112, 402),
    ("msi", 3_332, 202),
    ("timer", 2_531, 206),
];

/// A run takes 4 seconds, or up to a minute on a busy machine. A run that exceeds the limit is
/// assumed to hang.
const LIMIT: Duration = Duration::from_mins(5);
/// Memory of the Linux host, including guest memory.
const MEMORY: &str = "512M";
/// Modules in the order of their dependencies.
const MODULES: &[&str] =
    &["vfio.ko", "vfio_virqfd.ko", "vfio_iommu_type1.ko", "vfio-pci-core.ko", "vfio-pci.ko"];

/// Init script of the Linux host. It routes the device's interrupt to the CPU of the vCPU that
/// takes the device's MSI.
const INIT: &str = r#"#!/busybox sh
B=/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
$B mount -t debugfs debug /sys/kernel/debug
for module in $($B cat /modules); do $B insmod /$module; done
echo 1 > /proc/irq/default_smp_affinity
echo 1234 11e8 > /sys/bus/pci/drivers/vfio-pci/new_id
/kvm-monitor /guest /sys/bus/pci/drivers/vfio-pci/0000:*
echo "{\"monitor\":{\"ended\":{\"status\":$?}}}"
$B poweroff -f
"#;
/// Measures both configurations, and prints the results next to the recorded ones.
pub(crate) fn compare() -> Result<ExitCode> {
    for (cpus, record) in [(EACH, KVM), (SHARED, KVM_SHARED)] {
        println!("2 vCPUs on {cpus} CPUs");
        println!("the hypervisor: {}", microbench::costs(cpus)?);
        println!("Linux's KVM:    {}", measure(cpus)?);
        println!("on record:      {}", Costs::recorded(record));
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(cpus: u8) -> Result<Costs> {
    let mut costs = Costs::default();
    let guest = Guest { name: "microbench", image: &microbench::guest()?.flat };
    guest.run(cpus, COUNTED, |line| costs.line(line))?;
    Ok(costs)
}

/// A flat program for two vCPUs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest<'a> {
    /// Name of the guest's initial file system.
    pub(crate) name: &'a str,
    pub(crate) image: &'a Path,
}

impl Guest<'_> {
    /// Runs the guest on a machine with `cpus` CPUs, which counts instructions according to
    /// `counted`. Passes each line of output to `hear`.
    ///
    /// # Errors
    ///
    /// Fails if the guest did not turn its machine off.
    pub(crate) fn run(self, cpus: u8, counted: &[&str], mut hear: impl FnMut(&str)) -> Result<()> {
        let mut qemu = command(cpus, self)?;
        let (mut last, mut ended) = (String::new(), false);
        process::watch(qemu.args(counted), LIMIT, |line| {
            line.trim_end().clone_into(&mut last);
            ended |= Fact::parse(line) == Some(Fact::from(MonitorFact::Ended { status: 0 }));
            hear(line);
        })?;
        ensure!(ended, "the guest did not turn its machine off; the last line is `{last}`");
        Ok(())
    }
}

/// Returns the command that starts QEMU with Linux at EL2, the monitor and its guest, and the
/// device behind an SMMU.
fn command(cpus: u8, guest: Guest<'_>) -> Result<Command> {
    let (kernel, initrd) = linux(workspace::this()?, guest)?;
    let mut qemu = built::tools(COUNTING)?.command(qemu::PROGRAM);
    qemu.args(GICV3.arguments()).args(CONFINED).args(SURROUNDINGS);
    qemu.args(["-smp", &cpus.to_string(), "-m", MEMORY, "-append", COMMAND_LINE]);
    qemu.args(["-device", DEVICE]).arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
    Ok(qemu)
}

/// Builds the monitor for the machine that runs Linux's KVM.
fn monitor(workspace: &Workspace) -> Result<PathBuf> {
    const PACKAGE: &str = "kvm-monitor";
    toolchain::need_target(&workspace.root, JUDGE_TARGET)?;
    let mut cargo = process::cargo(&workspace.root);
    cargo.args(["build", "--release", "--package", PACKAGE, "--target", JUDGE_TARGET]);
    cargo.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER", "rust-lld");
    process::must(&mut cargo)?;
    Ok(workspace.target.join(JUDGE_TARGET).join("release").join(PACKAGE))
}

/// Returns the release's kernel, and an initial file system with the monitor and its guest.
fn linux(workspace: &Workspace, guest: Guest<'_>) -> Result<(PathBuf, PathBuf)> {
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
    let monitor = monitor(workspace).context("cannot build the monitor")?;
    files.push(File { path: "kvm-monitor", content: Content::Program(fs::read(monitor)?) });
    files.push(File { path: "guest", content: Content::Data(fs::read(guest.image)?) });
    let initrd = built::folder()?.join(format!("initramfs-kvm-{}", guest.name));
    fs::write(&initrd, initramfs::pack(&files))?;
    Ok((small_linux::kernel(&packages)?, initrd))
}
