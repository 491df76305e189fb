//! The cost of ArceOS's own interrupt drivers and of ours: instructions per interrupt, time until
//! the first interrupt, and program size. Our drivers include message-based SPIs, direct LPIs and
//! GICv2m, which ArceOS's own drivers lack.
//!
//! The program sends the messages itself, so the handler and the device are the same with both
//! drivers. Time is virtual: QEMU counts a nanosecond for each instruction.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use doorbell_harness::image::{self, Image};
use doorbell_harness::qemu::cost::{InstructionSplit, measure};

use super::boot::Output;

/// Word on ArceOS's command line that makes the program receive the interrupts.
pub(crate) const WORD: &str = "watched";
/// Part of the line that ArceOS logs when it has set up the disk's first vector. Later times depend
/// on the disk.
const DISK_READY: &str = "block device nvme IRQ source 0 ";
/// Upper limits of our drivers' cost, in percent of the cost of ArceOS's own drivers. The measured
/// costs are 100.7 %, 99.8 % (which varies by up to 4 % between runs), 112.5 % and 108.6 %.
const INTERRUPT: u64 = 105;
const READY: u64 = 105;
const FIRST: u64 = 115;
const TEXT: u64 = 110;

/// Costs of ArceOS with one of the drivers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// An interrupt.
    pub(crate) interrupt: InstructionSplit,
    /// Virtual microseconds from reset until the disk's first vector is set up.
    pub(crate) ready: u64,
    /// Virtual nanoseconds from the request for a vector to the end of its first interrupt.
    pub(crate) first: u64,
    /// Bytes of instructions and of data.
    pub(crate) text: u64,
    /// Bytes of all other memory of the program.
    pub(crate) data: u64,
}

impl Cost {
    /// Measures ArceOS's program on a machine with one CPU. `folder` receives the log.
    ///
    /// # Errors
    /// Fails if QEMU or the program fails.
    pub(crate) fn of(image: &Image, qemu: Command, folder: &Path) -> Result<Self> {
        let mut output = Output::default();
        let mut ready = None;
        let interrupt = measure(qemu, folder, |line| {
            output.line(line);
            if line.contains(DISK_READY) {
                ready = logged_at(line);
            }
        });
        let interrupt = interrupt.with_context(|| format!("the program printed {output:?}"))?;
        let elf = fs::read(&image.elf)?;
        let first = output.word_after("first interrupt after ")?;
        Ok(Self {
            interrupt,
            ready: ready.context("ArceOS did not set up its disk")?,
            first: first.strip_suffix(" ns").context("no unit")?.parse()?,
            text: image::text_bytes(&elf)?,
            data: image::data_bytes(&elf)?,
        })
    }

    /// Checks that our drivers cost at most slightly more than `stock`, ArceOS's own drivers.
    ///
    /// # Errors
    /// Fails if a limit is exceeded.
    pub(crate) fn judge(&self, stock: &Self) -> Result<()> {
        let total = |cost: &Self| cost.interrupt.total() as u64;
        within("an interrupt", total(self), total(stock), INTERRUPT)?;
        within("the setup", self.ready, stock.ready, READY)?;
        within("the first interrupt", self.first, stock.first, FIRST)?;
        within("the program", self.text, stock.text, TEXT)
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interrupt, ready, first, text, data } = self;
        write!(f, "{interrupt}; {} in total; ", interrupt.total())?;
        write!(f, "disk set up after {ready} us, first interrupt of a vector after {first} ns; ")?;
        write!(f, "{text} bytes of text, {data} of data")
    }
}

/// Returns the time of a line of ArceOS's log in microseconds: `[  0.061229 0:…`, after escape
/// sequences for colors.
fn logged_at(line: &str) -> Option<u64> {
    let mut times = line.split('[').filter_map(|part| {
        let (seconds, fraction) = part.trim_start().split(' ').next()?.split_once('.')?;
        let fraction = fraction.parse::<u64>().ok().filter(|_| fraction.len() == 6)?;
        Some(seconds.parse::<u64>().ok()? * 1_000_000 + fraction)
    });
    times.next()
}

fn within(what: &str, ours: u64, stock: u64, percent: u64) -> Result<()> {
    ensure!(
        ours * 100 <= stock * percent,
        "{what} costs {ours}, more than {percent} % of ArceOS's own {stock}"
    );
    Ok(())
}
