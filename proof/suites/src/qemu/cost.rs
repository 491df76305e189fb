//! The cost of an interrupt in instructions, in the test bench and in Linux, while both read from
//! the same disk.

mod linux;

use std::process::Command;

use anyhow::{Result, ensure};
use doorbell_harness::qemu::cost::{InstructionSplit, measure};
use doorbell_harness::qemu::{PROGRAM, Version, write_disk};

pub(crate) use self::linux::Linux;
use super::bench::{folder, image};
use super::virt::{Machine, WATCHED};
use crate::fetched;

/// The cost in Debian 12's Linux 6.1 on this machine, starting with the exception; `cargo xtask
/// qemu --cost` measures it again (docs/measurements.md).
pub(crate) const LINUX: InstructionSplit =
    InstructionSplit { acknowledge: 130, dispatch: 224, finish: 220, leave: 143 };

/// Linux's own addresses. Only these are logged, because its programs don't count.
const KERNEL: &str = "0xffff000000000000..0xffffffffffffffff";

/// Checks that an interrupt of the test bench takes fewer instructions from IAR to EOI than an
/// interrupt of Linux.
///
/// # Errors
/// Fails if the test bench takes at least as many instructions as Linux, or if no interrupt was
/// observed.
pub(crate) fn judge(version: Version) -> Result<()> {
    let ours = of_testbench(version)?;
    eprintln!("an interrupt takes {ours}; Linux: {LINUX}");
    ensure!(ours.core() < LINUX.core(), "an interrupt takes {ours}, Linux's {LINUX}");
    Ok(())
}

/// Measures an interrupt of the test bench.
pub(crate) fn of_testbench(version: Version) -> Result<InstructionSplit> {
    let image = image()?;
    let mut qemu = watched_machine(version)?;
    qemu.arg("-kernel").arg(&image.flat).args(["-append", WATCHED.expected]);
    measure(qemu, &folder(&WATCHED, version)?, |_| ())
}

/// Measures an interrupt of Linux.
pub(crate) fn of_linux(version: Version, linux: &Linux) -> Result<InstructionSplit> {
    let mut qemu = watched_machine(version)?;
    qemu.arg("-kernel").arg(&linux.kernel).arg("-initrd").arg(&linux.initrd);
    qemu.args(["-append", "console=ttyAMA0 quiet panic=-1", "-dfilter", KERNEL]);
    measure(qemu, &folder(&WATCHED, version)?, |_| ())
}

/// Returns a machine with the disk as its only device and a single CPU, so that no other interrupt
/// or CPU affects the measurement.
fn watched_machine(version: Version) -> Result<Command> {
    let Machine { options, cpu, cpus, .. } = WATCHED;
    let disk = folder(&WATCHED, version)?.join("disk.img");
    write_disk(&disk)?;
    let mut qemu = fetched::qemu(version)?.command(PROGRAM);
    qemu.args(["-nodefaults", "-display", "none", "-serial", "stdio", "-m", "512M", "-no-reboot"]);
    qemu.args(["-M", &format!("virt,{options}"), "-cpu", cpu, "-smp", &cpus.to_string()]);
    qemu.arg("-drive").arg(format!("if=none,id=d0,format=raw,readonly=on,file={}", disk.display()));
    qemu.args(["-device", "nvme,drive=d0,serial=1", "-icount", "shift=0,sleep=off"]);
    Ok(qemu)
}
