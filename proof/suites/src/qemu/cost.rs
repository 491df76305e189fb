//! The cost of an interrupt in instructions. QEMU logs every instruction from the exception to its
//! return, in the test bench and in Linux, while both read from the same disk.
//!
//! QEMU counts virtual time in instructions and runs a single CPU, so that neither timers nor the
//! logging affect the result. We exclude the instructions in the devices' own handlers, because
//! they aren't part of the interrupt core.

mod linux;
mod log;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, WatchedFact};
use doorbell_harness::process;
use doorbell_harness::qemu::{Monitor, PROGRAM, Version, write_disk};

pub use self::linux::Linux;
pub use self::log::InstructionSplit;
use self::log::Reader;
use super::bench::{folder, image};
use super::virt::{Machine, WATCHED};
use crate::fetched;

/// Time limit for booting and for logging a few hundred thousand lines.
pub const LIMIT: Duration = Duration::from_mins(10);
/// Minimum number of interrupts in the log; a log with fewer does not show the requested
/// interrupts.
const FEWEST: usize = 8;

/// The cost in Debian 12's Linux 6.1 on this machine, starting with the exception; `cargo xtask
/// qemu --cost` measures it again (docs/measurements.md).
pub const LINUX: InstructionSplit =
    InstructionSplit { acknowledge: 130, dispatch: 224, finish: 220, leave: 143 };

/// Linux's own addresses. Only these are logged, because its programs don't count.
const KERNEL: &str = "0xffff000000000000..0xffffffffffffffff";

/// Checks that an interrupt of the test bench takes fewer instructions from IAR to EOI than an
/// interrupt of Linux.
///
/// # Errors
/// Fails if the test bench takes at least as many instructions as Linux, or if no interrupt was
/// observed.
pub fn judge(version: Version) -> Result<()> {
    let ours = of_testbench(version)?;
    eprintln!("an interrupt takes {ours}; Linux: {LINUX}");
    ensure!(ours.core() < LINUX.core(), "an interrupt takes {ours}, Linux's {LINUX}");
    Ok(())
}

/// Measures an interrupt of the test bench.
pub fn of_testbench(version: Version) -> Result<InstructionSplit> {
    let image = image()?;
    let mut qemu = watched_machine(version)?;
    qemu.arg("-kernel").arg(&image.flat).args(["-append", WATCHED.expected]);
    measure(qemu, &folder(&WATCHED, version)?, |_| ())
}

/// Measures an interrupt of Linux.
pub fn of_linux(version: Version, linux: &Linux) -> Result<InstructionSplit> {
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

/// Runs a QEMU that counts virtual time in instructions, with a guest that reports
/// [`WatchedFact`]s, and logs the instructions between them to a file in `folder`. Passes each line
/// of output to `said`.
///
/// # Errors
/// Fails if QEMU or the guest fails, or if too few interrupts were observed.
pub fn measure(
    mut qemu: Command,
    folder: &Path,
    mut said: impl FnMut(&str),
) -> Result<InstructionSplit> {
    let (monitor, log) = (Monitor::offered_by(&mut qemu), folder.join("instructions.log"));
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let (typed, mut keyboard) = std::io::pipe()?;
    qemu.arg("-D").arg(&log);
    qemu.stdin(typed);
    let mut handler = None;
    let mut failure = None;
    process::watch(&mut qemu, LIMIT, |line| {
        said(line);
        let outcome = follow(line, &monitor, &mut keyboard, &mut handler);
        failure = failure.take().or(outcome.err());
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let handler = handler.context("the guest did not report that it was ready")?;
    let spans = read(&log, handler)?;
    fs::remove_file(log)?;
    Ok(spans)
}

/// Performs the action that a guest's fact requests.
fn follow(
    line: &str,
    monitor: &Monitor,
    keyboard: &mut impl Write,
    handler: &mut Option<u64>,
) -> Result<()> {
    match Fact::parse(line) {
        Some(Fact::Watched(WatchedFact::Ready { handler: address })) => {
            *handler = Some(u64::from_str_radix(&address, 16).context("the handler's address")?);
            monitor.order(&[
                // Older and newer QEMUs have different names for this command.
                "singlestep on",
                "one-insn-per-tb on",
                "log exec,nochain,int,trace:gicv3_icc_iar1_read,trace:gicv3_icc_eoir_write",
            ])?;
            keyboard.write_all(b"\n")?;
        }
        Some(Fact::Watched(WatchedFact::Done)) => {
            monitor.order(&["log none"])?;
            monitor.quit()?;
        }
        _ => {}
    }
    Ok(())
}

fn read(log: &Path, handler: u64) -> Result<InstructionSplit> {
    let mut reader = Reader::new(handler);
    let mut lines = BufReader::new(File::open(log)?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        reader.line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    let seen = reader.seen();
    ensure!(seen >= FEWEST, "{seen} interrupts were observed; at least {FEWEST} are needed");
    reader.median().context("no interrupt was observed from its exception to its return")
}
