//! Tests delays as Linux implements them (`el2/hostile`, `delay`), with and without trapped WFI.

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, HostileFact, Means};
use doorbell_harness::process;
use doorbell_harness::suite::Case;

use crate::board::{Board, COUNTED, LIMIT};
use crate::machine::MAX;
use crate::{built, hostile};

const MICROSECONDS: u64 = 1000;
/// Requested delay in nanoseconds.
const ASKED: u64 = MICROSECONDS * 1000;
/// Maximum delay in nanoseconds. The limit allows for the guest's own instructions and for some
/// exits.
const LONGEST: u64 = ASKED + 100_000;

/// Lists the cases: with one vCPU on the CPU, WFI idles the CPU, and with two vCPUs, WFI is
/// trapped.
pub(crate) fn cases() -> Vec<Case> {
    let case = |(vcpus, by, means)| {
        let name = format!("a delay of 1 of {vcpus} vCPUs on 1 CPU ends in time, by {by}");
        built::case(name, LIMIT, move || judge(vcpus, means))
    };
    [(1, "WFIT", Means::Wfit), (2, "the counter", Means::Counter)].map(case).into()
}

fn judge(vcpus: u8, means: Means) -> Result<()> {
    let board = Board { machine: MAX, vcpus, ..hostile::board()? };
    let words = format!("delay={MICROSECONDS}");
    let mut qemu = board.command(&[hostile::guest(&words)?])?;
    let mut found = None;
    process::watch(qemu.args(COUNTED), LIMIT, |line| {
        if let Some(Fact::Hostile(HostileFact::Delayed { requested, took, by })) = Fact::parse(line)
        {
            found = Some((requested, took, by));
        }
    })?;
    let (requested, took, by) = found.context("the guest did not report a delay")?;
    ensure!((requested, by) == (ASKED, means), "it delayed {requested} ns by {by:?}");
    ensure!((ASKED..LONGEST).contains(&took), "{MICROSECONDS} us took {took} ns");
    Ok(())
}
