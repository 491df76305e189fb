//! Random programs of four vCPUs, two devices and a guest that reprograms everything, on real
//! threads. The machine migrates between rounds, after signals through eventfds. A *slice* is one
//! run from a seed. Each slice runs in its own process, so that a panic of any thread or a hang
//! fails the slice alone.
//!
//! The judge: each signal is followed by a handling that began after it; no more handlings than
//! signals.
//!
//! The seed selects each thread's random choices and the machine's features. The schedule of the
//! threads remains the operating system's, so a slice that fails may have to be repeated.
//!
//! Faults that were planted in the code under test, and the time of the first slice that failed,
//! most of it spent waiting for the missing interrupt with a patience of six seconds:
//!
//! | fault | found after |
//! |---|---|
//! | folding a list register sets no ready bit for a pending LPI | 8 s |
//! | KVM's save clears pending bits while LPIs are disabled | 6 s |
//! | MOVI loses the pending state | 8 s |
//! | an extended SPI's INTID keeps only five bits | 0.5 s |
//! | a linked physical interrupt is not deactivated | 8 s |
//! | one kick in 1000 is forgotten | 8 s |
//! | a save does not settle eventfds | 61 s (with a patience of a minute) |
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a slice fails by a panic, and its own inputs are sound")]

mod chaos;
mod guest;
mod lifecycle;
mod slices;

use anyhow::{Context as _, Result};
use clap::Parser;
use std::process::ExitCode;

/// Runs random programs against the device model, in slices that each have a seed
#[derive(Debug, Parser)]
struct Arguments {
    /// Number of messages, such as 100000 or 1e9
    #[arg(long, value_parser = amount, default_value = "1e5")]
    messages: u64,
    /// Number of slices that run concurrently. More than the machine's CPUs make more of their
    /// schedules unusual
    #[arg(long, default_value_t = 1)]
    lanes: usize,
    /// Replay the slice with this seed in this process
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Arguments { messages, lanes, seed } = Arguments::parse();
    match seed {
        Some(seed) => slices::replay(seed, messages),
        None => return slices::run(messages, lanes.max(1)),
    }
    ExitCode::SUCCESS
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
