//! Checks guests that make unusual accesses (`el2/hostile`, `checks` and `absent`), and what the
//! hypervisor prints about accesses that it refuses.

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, HostileFact, HypervisorFact};
use doorbell_harness::process;
use doorbell_harness::suite::Case;

use crate::board::{Board, COUNTED, LIMIT, Record};
use crate::machine::{GICV3, MAX, Machine};
use crate::report::fact_of;
use crate::{built, hostile};

const ROUNDS: u64 = 20;
/// First page without a device, and most pages that the hypervisor names.
const ABSENT: usize = 0xb00_0000;
const MOST_PAGES: usize = 32;
/// Number of equal refusals in a row after which the hypervisor reports no progress.
const NO_PROGRESS: u64 = 1000;
const HANGS: &str = "guest 0 makes no progress";

/// Lists the cases.
pub(crate) fn cases() -> Vec<Case> {
    let check = |machine| {
        let name = format!("two guests of a CPU are what their ID registers say on {machine}");
        built::case(name, LIMIT, move || check(machine))
    };
    let refuse = |(times, name): (u64, &str)| {
        built::case(name, LIMIT, move || judge_refusals(&refused(times)?, times))
    };
    let refused = [
        (NO_PROGRESS - 1, "accesses to 32 pages without a device are printed once"),
        (NO_PROGRESS, "a guest without progress is named"),
    ];
    let hang = built::case("the counts of a guest that hangs are printed", LIMIT, hang);
    [GICV3, MAX].map(check).into_iter().chain(refused.map(refuse)).chain([hang]).collect()
}

fn check(machine: Machine) -> Result<()> {
    let words = format!("checks={ROUNDS}");
    let board = Board { machine, ..hostile::board()? };
    let mut qemu = board.command(&[hostile::guest(&words)?, hostile::guest(&words)?])?;
    let mut found = [None, None];
    process::watch(qemu.args(COUNTED), LIMIT, |line| {
        if let Some((guest, Fact::Hostile(HostileFact::Checked { rounds, failed }))) = fact_of(line)
            && let Some(place) = found.get_mut(guest)
        {
            *place = Some((rounds, failed.into_owned()));
        }
    })?;
    for (guest, found) in found.into_iter().enumerate() {
        let (rounds, failed) = found.with_context(|| format!("guest {guest} did not report"))?;
        ensure!(rounds == ROUNDS, "guest {guest} made {rounds} rounds");
        ensure!(failed.is_empty(), "guest {guest}: {failed}");
    }
    Ok(())
}

/// Runs a guest that never ends, on a machine with a limit.
fn hang() -> Result<()> {
    let record = Record { stats: true, ..Record::default() };
    let board = Board { record, limit: Some(1), ..hostile::board()? };
    let mut qemu = board.command(&[hostile::guest("attack=timer milliseconds=1000000")?])?;
    let (mut is_counted, mut is_ended) = (false, false);
    process::watch(&mut qemu, LIMIT, |line| match Fact::parse(line) {
        Some(Fact::Hypervisor(HypervisorFact::Count { .. })) => is_counted = true,
        Some(Fact::Hypervisor(HypervisorFact::Ended { .. })) => is_ended = true,
        _ => {}
    })?;
    ensure!(is_counted && !is_ended, "the limit did not end the machine");
    Ok(())
}

/// Returns the faults that the hypervisor prints about a guest with so many refused accesses, and
/// `ended` if the guest ends before it makes no progress.
fn refused(times: u64) -> Result<Vec<String>> {
    let words = format!("absent={times}");
    let mut qemu = hostile::board()?.command(&[hostile::guest(&words)?])?;
    let mut faults = Vec::<String>::new();
    process::watch(qemu.args(COUNTED), LIMIT, |line| match Fact::parse(line) {
        Some(Fact::Hypervisor(HypervisorFact::Fault { fault, .. })) => {
            faults.push(fault.into_owned());
        }
        Some(Fact::Hypervisor(HypervisorFact::Ended { .. }))
            if !faults.iter().any(|fault| fault.starts_with(HANGS)) =>
        {
            faults.push("ended".into());
        }
        _ => {}
    })?;
    Ok(faults)
}

fn judge_refusals(faults: &[String], times: u64) -> Result<()> {
    let (pages, rest) = faults.split_at_checked(MOST_PAGES).context("pages are missing")?;
    for (page, fault) in pages.iter().enumerate() {
        let end = if page + 1 == MOST_PAGES { "; further pages are not named" } else { "" };
        let access = format!("4 bytes at {:#x}{end}", ABSENT + 0x1000 * page);
        ensure!(fault.contains("vCPU 0 at PC 0x") && fault.ends_with(&access), "{fault}");
    }
    let expected = if times < NO_PROGRESS { "ended" } else { HANGS };
    ensure!(rest.len() == 1 && rest[0].starts_with(expected), "{rest:?}");
    Ok(())
}
