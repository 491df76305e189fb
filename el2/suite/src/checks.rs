//! Checks guests that make unusual accesses (`el2/hostile`, `checks` and `absent`), what the
//! hypervisor prints about accesses that it refuses, and delays as Linux implements them (`delay`),
//! with and without trapped WFI.

use anyhow::{Context, Result, bail, ensure};
use doorbell_facts::{HostileFact, Means};
use doorbell_harness::suite::Case;

use crate::board::{Board, GICV3, LIMIT, MAX, Machine};
use crate::built;
use crate::hostile::{BOARD, guest, run};

const ROUNDS: u64 = 20;
/// First page without a device, and most pages that the hypervisor names.
const ABSENT: usize = 0xb00_0000;
const MOST_PAGES: usize = 32;
/// Number of equal refusals in a row after which the hypervisor reports no progress.
const NO_PROGRESS: u64 = 1000;
const HANGS: &str = "guest 0 makes no progress";
const MICROSECONDS: u64 = 1000;
/// Requested delay in nanoseconds.
const ASKED: u64 = MICROSECONDS * 1000;
/// Maximum delay in nanoseconds. The limit allows for the guest's own instructions and for some
/// exits.
const LONGEST: u64 = ASKED + 100_000;

/// Lists the cases. With one vCPU on the CPU, WFI idles the CPU, and with two vCPUs, WFI is
/// trapped.
pub(crate) fn cases() -> Vec<Case> {
    let check = |machine| {
        let name = format!("two guests of a CPU are what their ID registers say on {machine}");
        built::case(name, LIMIT, move || check(machine))
    };
    let refuse =
        |(times, name): (u64, &str)| built::case(name, LIMIT, move || judge_refusals(times));
    let refused = [
        (NO_PROGRESS - 1, "accesses to 32 pages without a device are printed once"),
        (NO_PROGRESS, "a guest without progress is named"),
    ];
    let delay = |(vcpus, by, means)| {
        let name = format!("a delay of 1 of {vcpus} vCPUs on 1 CPU ends in time, by {by}");
        built::case(name, LIMIT, move || judge_delay(vcpus, means))
    };
    let delays = [(1, "WFIT", Means::Wfit), (2, "the counter", Means::Counter)].map(delay);
    let checks = [GICV3, MAX].map(check).into_iter().chain(refused.map(refuse));
    checks.chain(delays).collect()
}

fn check(machine: Machine) -> Result<()> {
    let words = format!("checks={ROUNDS}");
    let output = run(Board { machine, ..BOARD }, &[guest(&words)?; 2])?;
    for number in 0..2 {
        let Some(HostileFact::Checked { rounds, failed }) = output.hostile(number) else {
            bail!("guest {number} did not report");
        };
        ensure!(*rounds == ROUNDS, "guest {number} made {rounds} rounds");
        ensure!(failed.is_empty(), "guest {number}: {failed}");
    }
    Ok(())
}

/// Runs a guest with so many refused accesses, and checks what the hypervisor prints about them.
/// With fewer than [`NO_PROGRESS`], the guest ends without a further fault.
fn judge_refusals(times: u64) -> Result<()> {
    let words = format!("absent={times}");
    let output = run(BOARD, &[guest(&words)?])?;
    let faults = output.faults();
    let (pages, rest) = faults.split_at_checked(MOST_PAGES).context("pages are missing")?;
    for (page, fault) in pages.iter().enumerate() {
        let end = if page + 1 == MOST_PAGES { "; further pages are not named" } else { "" };
        let access = format!("4 bytes at {:#x}{end}", ABSENT + 0x1000 * page);
        ensure!(fault.contains("vCPU 0 at PC 0x") && fault.ends_with(&access), "{fault}");
    }
    let is_right = match rest {
        [] => times < NO_PROGRESS && output.ending(0).is_some(),
        [fault] => times >= NO_PROGRESS && fault.starts_with(HANGS),
        _ => false,
    };
    ensure!(is_right, "{rest:?}, and then {:?}", output.ending(0));
    Ok(())
}

fn judge_delay(vcpus: u8, means: Means) -> Result<()> {
    let words = format!("delay={MICROSECONDS}");
    let output = run(Board { machine: MAX, vcpus, ..BOARD }, &[guest(&words)?])?;
    let Some(&HostileFact::Delayed { requested, took, by }) = output.hostile(0) else {
        bail!("the guest did not report a delay");
    };
    ensure!((requested, by) == (ASKED, means), "it delayed {requested} ns by {by:?}");
    ensure!((ASKED..LONGEST).contains(&took), "{MICROSECONDS} us took {took} ns");
    Ok(())
}
