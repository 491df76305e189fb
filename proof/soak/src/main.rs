//! Random programs against the device model, the routes and the simulated machine. A *slice* is one
//! run of a part from a seed. Each slice runs in its own process, so that a panic of any thread or
//! a hang fails the slice alone.
//!
//! | part | threads | judge |
//! |---|---|---|
//! | `chaos` | 4 vCPUs, 2 devices and a guest that reprograms everything; migration between rounds, after signals through eventfds | each signal is followed by a handling that began after it; no more handlings than signals; priorities |
//! | `its` | none | an abstract GIC: deliveries, reasons of failed commands, acknowledged LPIs |
//! | `levels` | 4 devices with level eventfds, 2 pollers, a vCPU, a monitor that moves GSIs | each request is served; no pin stays high |
//! | `msix` | 3 senders, also through eventfds, a guest that masks, disables and rewrites vectors, and saves | nothing is sent while masked, whole messages, nothing lost, each signal is sent or pending at a save |
//! | `machine` | drivers on the simulated machine: moves, hotplug of CPUs and devices, suspensions, migration | the machine's own judge |
//! | `kvm` | a sender, and a monitor that moves routes in the host's KVM | each signal arrives, and only at a destination that its route had in the meantime; skipped without KVM |
//!
//! The seed selects each thread's random choices and the machine's features. The schedule of the
//! threads remains the operating system's, so a slice that fails may have to be repeated.
//!
//! Faults that were planted in the code under test, and the programs that found them. The time is
//! that of the first failing slice, most of it spent waiting for the missing interrupt:
//!
//! | fault | program | found after |
//! |---|---|---|
//! | folding a list register sets no ready bit for a pending LPI | `chaos` | 8 s |
//! | KVM's save clears pending bits while LPIs are disabled | `chaos` (KVM) | 6 s |
//! | MOVI loses the pending state | `its`, `chaos` | 0.1 s, 8 s |
//! | MOVALL does nothing | `its` | 0.1 s |
//! | INVALL does nothing | `its` | 0.1 s |
//! | an ended level does not signal the resample eventfd | `levels` | 7 s |
//! | releasing a pin leaves it high | `levels` | 0.2 s |
//! | masking a vector does not wait for senders | `msix` | 0.1 s |
//! | opening a vector does not send its pending message | `msix` | 0.1 s |
//! | an extended SPI's INTID keeps only five bits | `chaos` (extended) | 0.5 s |
//! | a linked physical interrupt is not deactivated | `chaos` (linked) | 8 s |
//! | the Non-secure view does not shift priorities | `chaos` (Non-secure) | 3 s |
//! | one kick in 1000 is forgotten | `chaos` | 8 s |
//! | a save does not settle eventfds | `msix`, `chaos` | 0.9 s, 61 s (with a patience of a minute) |
//!
//! The patience of `chaos` and `levels` was six seconds in the other trials.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a slice fails by a panic, and its own inputs are sound")]

mod chaos;
mod guest;
mod its;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kvm;
mod levels;
mod lifecycle;
mod machine;
mod msix;
mod outcome;
mod part;
mod slices;
mod verdicts;

use anyhow::{Context as _, Result};
use clap::Parser;
use part::Part;
use slices::Amount;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs random programs against the device model, in slices that each have a seed
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of messages of all parts together, such as 100000 or 1e9
    #[arg(long, value_parser = amount, default_value = "1e5")]
    messages: u64,
    /// Number of slices that run concurrently. More than the machine's CPUs make more of their
    /// schedules unusual
    #[arg(long, default_value_t = 1)]
    lanes: usize,
    /// Run only this part
    #[arg(long, value_enum)]
    part: Option<Part>,
    /// Replay the slice with this seed in this process (requires --part)
    #[arg(long, requires = "part")]
    seed: Option<u64>,
    /// Verdict file (JSON lines), in which a later run finds the slices that need not run again
    #[arg(long, value_name = "FILE")]
    verdicts: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let parts = match arguments.part {
        Some(part) => vec![part],
        None => Part::ALL.to_vec(),
    };
    if let (Some(part), Some(seed)) = (arguments.part, arguments.seed) {
        slices::replay(part, seed, arguments.messages)?;
        return Ok(ExitCode::SUCCESS);
    }
    let whole = Amount { messages: arguments.messages, parts: &parts };
    slices::run(whole, arguments.lanes.max(1), arguments.verdicts.as_deref())
}

/// Parses a number, which may have an exponent.
fn amount(text: &str) -> Result<u64> {
    let (number, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let number: u64 = number.parse()?;
    10_u64
        .checked_pow(exponent.parse()?)
        .and_then(|factor| number.checked_mul(factor))
        .context("the number is too large")
}
