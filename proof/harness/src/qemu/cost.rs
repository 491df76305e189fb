//! The cost of an interrupt in instructions. QEMU logs every instruction from the exception to its
//! return, while a guest reads from a disk.
//!
//! QEMU counts virtual time in instructions and runs a single CPU, so that neither timers nor the
//! logging affect the result. We exclude the instructions in the devices' own handlers, because
//! they aren't part of the interrupt core.

mod log;

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, WatchedFact};

pub use self::log::InstructionSplit;
use self::log::LogReader;
use super::HumanMonitor;
use crate::{hang, process};

/// Limit for booting and for logging a few hundred thousand lines.
pub const LIMIT: Duration = hang::RUN;
/// Minimum number of interrupts in the log; a log with fewer does not show the requested
/// interrupts.
const FEWEST: usize = 8;

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
    let (monitor, log) = (HumanMonitor::offered_by(&mut qemu), folder.join("instructions.log"));
    if log.exists() {
        fs::remove_file(&log)?;
    }
    let (typed, mut keyboard) = io::pipe()?;
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
    monitor: &HumanMonitor,
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
                "log exec,nochain,int,trace:gicv3_icc_iar1_read,trace:gicv3_icc_eoir_write,\
                 trace:gicv3_icv_iar_read,trace:gicv3_icv_eoir_write",
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
    let mut reader = LogReader::new(handler);
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
