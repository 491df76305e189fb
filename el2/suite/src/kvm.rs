//! Runs a guest (`el2/microbench` or a program of kvm-unit-tests) under KVM, on the QEMU version
//! that counts instructions. The results are the baseline for the hypervisor's costs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context, Result};
use doorbell_facts::MonitorFact;
use doorbell_harness::apt::Suite;
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::qemu;
use doorbell_harness::toolchain::{self, JUDGE_TARGET};
use doorbell_harness::workspace::{self, Workspace};
use doorbell_harness::{process, small_linux};

use crate::board::{CONFINED, COUNTED, COUNTING, GICV3, GICV4, Machine, SURROUNDINGS};
use crate::built;
use crate::costs::Costs;
use crate::debian::COMMAND_LINE;
use crate::microbench::{self, DEVICE, EACH, SHARED};
use crate::output::Output;

/// Instructions of each operation and exits of all its repetitions, on Debian 12's Linux 6.1.
/// `cargo xtask hypervisor --cost` repeats the measurement (docs/measurements.md).
pub(crate) const KVM: &[(&str, u64, u64)] = &[
    ("hypercall", 1_127, 202),
    ("register", 1_905, 202),
    ("lpi", 6_185, 402),
    ("invall", 4_112, 402),
    ("msi", 3_332, 202),
    ("timer", 2_531, 206),
];
/// Costs that depend on whether each vCPU has a CPU, or both share one.
pub(crate) const KVM_EACH: &[(&str, u64, u64)] = &[("eoi", 2, 2), ("ipi", 4_708, 402)];
pub(crate) const KVM_SHARED: &[(&str, u64, u64)] = &[("eoi", 3, 2), ("ipi", 15_611, 402)];

/// A run takes 4 seconds, or up to a minute on a busy machine. A run that exceeds the limit is
/// assumed to hang.
const LIMIT: Duration = Duration::from_mins(5);
/// Argument with which Linux uses direct injection if the machine has it.
const DIRECT: &str = "kvm-arm.vgic_v4_enable=1";
/// Memory of the Linux host, including guest memory.
const MEMORY: &str = "512M";
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

/// A machine that runs Linux's KVM.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host {
    /// The release whose kernel the machine runs.
    suite: Suite,
    machine: Machine,
    cpus: u8,
}

/// Releases and machines that are measured. Of newer kernels, only direct injection is. They may
/// crash on a single CPU.
const MEASURED: [(Suite, Machine); 4] = [
    (Suite::Stable, GICV3),
    (Suite::Stable, GICV4),
    (Suite::Backports, GICV4),
    (Suite::Unstable, GICV4),
];

/// Measures all configurations, and prints the results next to the recorded ones.
pub(crate) fn compare() -> Result<ExitCode> {
    for (board, record) in [(EACH, KVM_EACH), (SHARED, KVM_SHARED)] {
        let cpus = board.cpus;
        println!("2 vCPUs on {cpus} CPUs");
        println!("the hypervisor: {}", microbench::costs(board)?);
        for (suite, machine) in MEASURED {
            let costs = Host { suite, machine, cpus }.measure();
            let costs = costs.map_or_else(|error| format!("{error:#}"), |costs| costs.to_string());
            println!("KVM ({suite:?}, {machine}): {costs}");
        }
        println!("on record:      {}", Costs::recorded(&[KVM, record].concat()));
    }
    Ok(ExitCode::SUCCESS)
}

impl Host {
    /// Returns a machine with the stable release's kernel and a GICv3.
    pub(crate) const fn stable(cpus: u8) -> Self {
        Self { suite: Suite::Stable, machine: GICV3, cpus }
    }

    fn measure(self) -> Result<Costs> {
        let guest = microbench::guest()?.kernel;
        Ok(Costs::of(&self.run(("microbench", guest), COUNTED)?))
    }

    /// Runs a guest, given its name and its flat program for two vCPUs, while the machine counts
    /// instructions according to `counted`.
    ///
    /// # Errors
    ///
    /// Fails if the guest did not turn its machine off.
    pub(crate) fn run(self, guest: (&str, &Path), counted: &[&str]) -> Result<Output> {
        let output = Output::within(self.command(guest)?.args(counted), LIMIT)?;
        let ended = output.must_state(MonitorFact::Ended { status: 0 });
        ended.context("the guest did not turn its machine off")?;
        Ok(output)
    }

    /// Returns the command that starts QEMU with Linux at EL2, the monitor and its guest, and the
    /// device behind an SMMU.
    fn command(self, guest: (&str, &Path)) -> Result<Command> {
        let (kernel, initrd) = self.linux(workspace::this()?, guest)?;
        let mut qemu = built::tools(COUNTING)?.command(qemu::PROGRAM);
        qemu.args(self.machine.arguments()).args(CONFINED).args(SURROUNDINGS);
        qemu.args(["-smp", &self.cpus.to_string(), "-m", MEMORY]);
        qemu.args(["-append", &format!("{COMMAND_LINE} {DIRECT}")]);
        qemu.args(["-device", DEVICE]).arg("-kernel").arg(kernel).arg("-initrd").arg(initrd);
        Ok(qemu)
    }

    /// Returns the kernel, and an initial file system with the monitor and its guest.
    fn linux(
        self,
        workspace: &Workspace,
        (name, image): (&str, &Path),
    ) -> Result<(PathBuf, PathBuf)> {
        let packages = small_linux::fetch_with_modules(workspace, self.suite)?;
        let modules = small_linux::confined_vfio_modules(self.suite);
        let modules = small_linux::modules(&packages, &modules)?;
        let busybox = small_linux::fetch_busybox(workspace)?;
        let mut files = small_linux::first_files(&busybox, INIT, modules)?;
        let monitor = monitor(workspace).context("cannot build the monitor")?;
        files.push(File { path: "kvm-monitor", content: Content::Program(fs::read(monitor)?) });
        files.push(File { path: "guest", content: Content::Data(fs::read(image)?) });
        let initrd = format!("initramfs-kvm-{:?}-{name}", self.suite).to_lowercase();
        let initrd = built::folder()?.join(initrd);
        fs::write(&initrd, initramfs::pack(&files))?;
        Ok((small_linux::kernel(&packages)?, initrd))
    }
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
