//! The costs of what a guest asks of its virtual GIC, in instructions of guest and hypervisor
//! together. QEMU counts virtual time in instructions (`-icount`) and runs one CPU at a time, so
//! that every run has the same figures.

use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::microbench::Microbench;
use super::report::moves;
use super::{LIMIT, MOVES, Record};
use crate::process;
use crate::step::Tally;

/// Operations of the guest, and the most instructions that each may take. Under Linux 6.1's KVM
/// they take 1,094, 1,939, 4,878 and 7,201 (docs/measurements.md). The limits leave some room for
/// what another compiler makes of the same source.
const LIMITS: &[(&str, u64)] =
    &[("hypercall", 230), ("register", 500), ("ipi", 2_700), ("lpi", 3_100)];

/// The guest has woken its other CPU each time.
const WOKEN: &str = "woken ";

/// Measures, and holds the limits.
pub(super) fn run(microbench: &Microbench<'_>, tally: &mut Tally) -> Result<()> {
    let mut qemu = microbench.command(Record::default(), None)?;
    let mut costs = Vec::new();
    process::watch(&mut qemu, LIMIT, |line| costs.extend(cost(line)))?;
    println!("instructions of a guest's operations: {costs:?}");
    for (operation, limit) in LIMITS {
        let name = format!("a guest's {operation} takes at most {limit} instructions");
        tally.case(&name, judge(&costs, operation, *limit));
    }
    let name = "a vCPU that sleeps is woken by what comes after a move";
    tally.case(name, wakes(microbench.command(Record::default(), Some(1))?));
    Ok(())
}

/// The guest wakes its other CPU, which has slept while it was moved.
fn wakes(mut qemu: Command) -> Result<()> {
    let (mut is_woken, mut moved) = (false, 0);
    process::watch(&mut qemu, LIMIT, |line| {
        is_woken |= line.starts_with(WOKEN);
        moved = moves(line).unwrap_or(moved);
    })?;
    ensure!(is_woken, "the guest does not say that it woke it");
    ensure!(moved >= MOVES, "{moved} moves, not {MOVES}");
    Ok(())
}

/// The operation and its cost in a line of the guest's.
fn cost(line: &str) -> Option<(String, u64)> {
    let (operation, cost) = line.trim_end().strip_prefix("cost - ")?.split_once(' ')?;
    Some((operation.into(), cost.parse().ok()?))
}

fn judge(costs: &[(String, u64)], operation: &str, limit: u64) -> Result<()> {
    let found = costs.iter().find(|(name, _)| name == operation);
    let (_, cost) = found.context("the guest did not measure it")?;
    ensure!(*cost <= limit, "it takes {cost}");
    Ok(())
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn costs_beyond_their_limit_fail() {
        let costs = [cost("cost - ipi 100\r").unwrap()];
        assert!(judge(&costs, "ipi", 100).is_ok());
        assert!(judge(&costs, "ipi", 99).is_err());
        assert!(judge(&costs, "lpi", 100).is_err());
    }

    #[test]
    fn other_lines_state_no_cost() {
        assert_eq!(cost("hypervisor: a guest of 2 vCPUs"), None);
        assert_eq!(cost("cost - ipi"), None);
        assert_eq!(cost("cost - ipi many"), None);
    }
}
