//! Cost of an interrupt in instructions. QEMU logs every one between the exception and its return,
//! for the test bench and for Linux alike, while each reads from the same disk.
//!
//! QEMU counts virtual time in instructions meanwhile, so that neither timers nor the watching
//! change what is seen, and runs one CPU. What the devices' own handlers do is told apart: it is
//! not the interrupt core's.

mod linux;
mod log;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

pub(super) use self::linux::Linux;
use self::log::Reader;
pub(super) use self::log::Spans;
use crate::process;
use doorbell_harness::qemu::Monitor;

/// Booting, and logging a few hundred thousand lines.
const LIMIT: Duration = Duration::from_mins(3);
/// Both print these; the first with the address of the handler to watch.
const READY: &str = "cost: ready ";
const DONE: &str = "cost: done";
/// Fewer interrupts than this were not the ones that were asked for.
const FEWEST: usize = 8;

/// Cost in Debian 12's Linux 6.1 on this machine, from the exception on; `cargo xtask qemu --cost`
/// measures it anew (docs/measurements.md).
pub(super) const LINUX: Spans = Spans { acknowledge: 130, dispatch: 224, finish: 220, leave: 143 };

/// Linux's own addresses: what its programs do is not logged.
pub(super) const KERNEL: &str = "0xffff000000000000..0xffffffffffffffff";

/// Runs a QEMU with a guest that prints the two lines, and logs what is between them.
pub(super) fn measure(mut qemu: Command, folder: &Path) -> Result<Spans> {
    let (monitor, log) = (Monitor::offered_by(&mut qemu, folder)?, folder.join("instructions.log"));
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let (typed, mut keyboard) = std::io::pipe()?;
    qemu.args(["-icount", "shift=0,sleep=off", "-D"]).arg(&log);
    qemu.stdin(typed);
    let mut handler = None;
    let mut failure = None;
    process::watch(&mut qemu, LIMIT, |line| {
        let outcome = follow(line, &monitor, &mut keyboard, &mut handler);
        failure = failure.take().or(outcome.err());
    })?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    let handler = handler.context("the guest never said that it was ready")?;
    let spans = read(&log, handler)?;
    fs::remove_file(log)?;
    Ok(spans)
}

/// Carries out the request in a line of the guest's.
fn follow(
    line: &str,
    monitor: &Monitor,
    keyboard: &mut impl Write,
    handler: &mut Option<u64>,
) -> Result<()> {
    if let Some(address) = line.trim_end().strip_prefix(READY) {
        let address = address.split_whitespace().next().context("no address of a handler")?;
        *handler = Some(u64::from_str_radix(address, 16)?);
        monitor.order(&[
            // The older name, and the newer one.
            "singlestep on",
            "one-insn-per-tb on",
            "log exec,nochain,int,trace:gicv3_icc_iar1_read,trace:gicv3_icc_eoir_write",
        ])?;
        keyboard.write_all(b"\n")?;
    } else if line.trim_end() == DONE {
        monitor.order(&["log none"])?;
        monitor.quit()?;
    }
    Ok(())
}

fn read(log: &Path, handler: u64) -> Result<Spans> {
    let mut reader = Reader::new(handler);
    let mut lines = BufReader::new(File::open(log)?);
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        reader.line(&String::from_utf8_lossy(&line));
        line.clear();
    }
    let seen = reader.seen();
    ensure!(seen >= FEWEST, "{seen} interrupts were seen, not {FEWEST}");
    reader.median().context("no interrupt was seen from its exception to its return")
}
