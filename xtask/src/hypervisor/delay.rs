//! A guest that delays as Linux does (`el2/hostile`, `delay`), where WFI traps and where it does
//! not.

use anyhow::{Context, Result, ensure};

use super::hostile::Hostile;
use super::machine::MAX;
use super::microbench::COUNTED;
use super::{Board, LIMIT};
use crate::parallel::Trial;
use crate::process;
use doorbell_harness::image::Image;

const MICROSECONDS: u64 = 1000;
/// Requested delay in nanoseconds.
const ASKED: u64 = MICROSECONDS * 1000;
/// Longest delay in nanoseconds: the margin covers the guest's own instructions and some exits.
const LONGEST: u64 = ASKED + 100_000;

/// Lists the trials: one vCPU on the CPU, where WFI idles it, and two vCPUs on it, where WFI traps.
pub(super) fn trials<'a>(
    hostile: &'a Hostile,
    hypervisor: &'a Image,
) -> impl Iterator<Item = Trial<'a>> {
    [(1, "WFIT"), (2, "the counter")].into_iter().map(move |(vcpus, by)| -> Trial<'a> {
        Box::new(move |tally| {
            let name = format!("a delay of 1 of {vcpus} vCPUs on 1 CPU ends in time, by {by}");
            tally.case(&name, judge(hostile, hypervisor, vcpus, by));
            Ok(())
        })
    })
}

fn judge(hostile: &Hostile, hypervisor: &Image, vcpus: u8, by: &str) -> Result<()> {
    let board = Board { machine: MAX, vcpus, ..hostile.board(hypervisor) };
    let words = format!("delay={MICROSECONDS}");
    let mut qemu = board.command(&[hostile.first(&words)])?;
    let mut took = None;
    process::watch(qemu.args(COUNTED), LIMIT, |line| took = took.or(nanoseconds(line, by)))?;
    let took = took.with_context(|| format!("the guest does not say that it delayed by {by}"))?;
    ensure!((ASKED..LONGEST).contains(&took), "{MICROSECONDS} us took {took} ns");
    Ok(())
}

/// Parses the delay that a guest reports.
fn nanoseconds(line: &str, by: &str) -> Option<u64> {
    let took = line.trim_end().strip_prefix(&format!("delay - {MICROSECONDS} us by {by} took "))?;
    took.strip_suffix(" ns")?.parse().ok()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn a_delay_is_the_one_by_the_means_that_is_asked_for() {
        let line = "delay - 1000 us by WFIT took 1000720 ns\r";
        assert_eq!(nanoseconds(line, "WFIT"), Some(1_000_720));
        assert_eq!(nanoseconds(line, "the counter"), None);
    }
}
