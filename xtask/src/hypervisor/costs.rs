//! The costs of what a guest asks of its virtual GIC, in instructions of guest and hypervisor
//! together. QEMU counts virtual time in instructions (`-icount`) and runs one CPU at a time, so
//! that every run has the same figures.

use std::fmt;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::microbench::{EACH, Microbench, SHARED};
use super::report::moves;
use super::{LIMIT, MOVES, Record};
use crate::process;
use crate::step::Tally;

/// Operations of the guest, and the most instructions that each may take: fewer than under Linux's
/// KVM. The limits leave some room for what another compiler makes of the same source.
const LIMITS: &[(&str, u64)] =
    &[("hypercall", 160), ("register", 420), ("ipi", 1_300), ("lpi", 2_300), ("msi", 1_400)];
/// Likewise, for vCPUs that share a CPU: the SGI makes both of them leave it.
const SHARED_LIMITS: &[(&str, u64)] =
    &[("hypercall", 160), ("register", 420), ("ipi", 6_500), ("lpi", 2_300), ("msi", 1_400)];

/// Maximum number of exits of an operation. An SGI takes one exit to send, and one for its kick; an
/// LPI by INT writes `GITS_CWRITER` and reads `GITS_CREADR`; a device's message is a physical
/// interrupt.
const EXITS: &[(&str, u64)] =
    &[("hypercall", 1), ("register", 1), ("ipi", 2), ("lpi", 2), ("msi", 1)];
/// Times that the guest does what it measures.
const TURNS: u64 = 200;
/// Maximum number of other exits in the meantime, for example by the hypervisor's own timer.
const OTHERS: u64 = 4;
/// QEMU's educational device, whose message the guest measures.
pub(super) const DEVICE: &str = "edu";

/// The guest has woken its other CPU each time.
const WOKEN: &str = "woken ";
/// Part of the line that the hypervisor prints about a mistake of its guest.
const FAULT: &str = ": fault of the guest: ";

/// Measures, and holds the limits.
pub(super) fn run(microbench: &Microbench<'_>, tally: &mut Tally) -> Result<()> {
    for (cpus, limits) in [(EACH, LIMITS), (SHARED, SHARED_LIMITS)] {
        let costs = microbench.watch(cpus, Record::default())?;
        println!("instructions of a guest's operations, 2 vCPUs on {cpus} CPUs: {costs}");
        for (operation, limit) in limits {
            let name =
                format!("a guest's {operation} on {cpus} CPUs takes at most {limit} instructions");
            tally.case(&name, judge(&costs.instructions, operation, *limit));
        }
    }
    let name = "a vCPU that sleeps is woken by what comes after a move";
    tally.case(name, wakes(microbench.command(EACH, Record::default(), Some(1))?));
    Ok(())
}

/// The guest wakes its other CPU, which has slept while it was moved.
fn wakes(mut qemu: Command) -> Result<()> {
    let (mut is_woken, mut moved, mut fault) = (false, 0, None);
    process::watch(&mut qemu, LIMIT, |line| {
        is_woken |= line.starts_with(WOKEN);
        fault = fault.take().or_else(|| line.contains(FAULT).then(|| line.to_owned()));
        moved = moves(line).unwrap_or(moved);
    })?;
    ensure!(is_woken, "the guest does not say that it woke it");
    ensure!(fault.is_none(), "{}", fault.unwrap_or_default());
    ensure!(moved >= MOVES, "{moved} moves, not {MOVES}");
    Ok(())
}

/// Costs of operations, as a guest prints them, and exits, as its hypervisor does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Costs {
    /// Of each operation.
    instructions: Vec<(String, u64)>,
    /// Of all turns of each operation.
    exits: Vec<(String, u64)>,
    /// Exits that were traced since the operation has begun.
    traced: u64,
}

impl Costs {
    /// Costs that are on record: operations, their instructions, exits of all their turns.
    pub(super) fn recorded(rows: &[(&str, u64, u64)]) -> Self {
        let instructions = rows.iter().map(|&(operation, cost, _)| (operation.to_owned(), cost));
        let exits = rows.iter().map(|&(operation, _, exits)| (operation.to_owned(), exits));
        Self { instructions: instructions.collect(), exits: exits.collect(), traced: 0 }
    }

    /// Takes a line into account.
    pub(super) fn line(&mut self, line: &str) {
        if line.starts_with("trace - ") {
            self.traced += u64::from(line.contains(": exits by "));
        } else if line.starts_with("measures - ") {
            self.traced = 0;
        } else if let Some((operation, cost)) = figure(line, "cost - ") {
            if self.traced > 0 {
                self.exits.push((operation.clone(), self.traced));
            }
            self.instructions.push((operation, cost));
        } else {
            self.exits.extend(figure(line, "exits - "));
        }
    }

    /// Holds the limits of exits.
    pub(super) fn judge_exits(&self, tally: &mut Tally) {
        for (operation, limit) in EXITS {
            let name = format!("a guest's {operation} takes at most {limit} exits");
            tally.case(&name, judge(&self.exits, operation, limit * TURNS + OTHERS));
        }
    }

    /// With the exits of another run.
    pub(super) fn with_exits_of(self, other: Self) -> Self {
        Self { exits: other.exits, ..self }
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (operation, cost)) in self.instructions.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{operation} {cost}")?;
            if let Some((_, exits)) = self.exits.iter().find(|(name, _)| name == operation) {
                write!(f, " in {}.{:02} exits", exits / TURNS, exits % TURNS * 100 / TURNS)?;
            }
        }
        Ok(())
    }
}

/// The operation and its figure in a line that begins so.
fn figure(line: &str, kind: &str) -> Option<(String, u64)> {
    let (operation, figure) = line.trim_end().strip_prefix(kind)?.split_once(' ')?;
    Some((operation.into(), figure.parse().ok()?))
}

fn judge(costs: &[(String, u64)], operation: &str, limit: u64) -> Result<()> {
    let found = costs.iter().find(|(name, _)| name == operation);
    let (_, cost) = found.context("the guest did not measure it")?;
    ensure!(*cost <= limit, "it takes {cost}");
    Ok(())
}

#[cfg(test)]
mod test {
    use super::super::kvm::{KVM, KVM_SHARED};
    use super::*;

    fn costs(lines: &[&str]) -> Costs {
        let mut costs = Costs::default();
        for line in lines {
            costs.line(line);
        }
        costs
    }

    #[test]
    fn costs_beyond_their_limit_fail() {
        let costs = costs(&["cost - ipi 100\r"]).instructions;
        assert!(judge(&costs, "ipi", 100).is_ok());
        assert!(judge(&costs, "ipi", 99).is_err());
        assert!(judge(&costs, "lpi", 100).is_err());
    }

    #[test]
    fn limits_are_below_kvms_costs() {
        for (limits, costs) in [(LIMITS, KVM), (SHARED_LIMITS, KVM_SHARED)] {
            for (operation, limit) in limits {
                let mut rows = costs.iter().filter(|(name, ..)| name == operation);
                assert!(rows.any(|(_, cost, _)| limit < cost), "{operation}");
            }
        }
    }

    #[test]
    fn other_lines_state_no_cost() {
        let lines = ["hypervisor: a guest of 2 vCPUs", "cost - ipi", "cost - ipi many"];
        assert_eq!(costs(&lines), Costs::default());
    }

    #[test]
    fn exits_are_those_since_the_operation_began() {
        let exit = "trace - 8 guest 0 vCPU 1: exits by WFI";
        let lines = [exit, "measures - lpi\r", exit, exit, "trace - 9 guest 0 vCPU 0: injects 1"];
        let traced = costs(&[&lines[..], &["cost - lpi 7\r"]].concat());
        let printed = costs(&["measures - lpi", "cost - lpi 7", "exits - lpi 2"]);
        assert_eq!(traced.exits, printed.exits);
        assert_eq!(costs(&["cost - lpi 7"]).with_exits_of(printed).exits, traced.exits);
    }
}
