//! Checks the hypervisor's records of exits and interrupts (`--stats`, `--exits`), using a guest
//! whose exits are all known in advance.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, HypervisorFact};
use doorbell_harness::process;
use doorbell_harness::suite::{Case, Shared};

use crate::board::{LIMIT, Record};
use crate::built;
use crate::costs::Costs;
use crate::microbench::{self, EACH};

/// Number of operations of each kind that `el2/microbench` performs.
pub(crate) const TURNS: u64 = 201;
/// Number of SGIs to a CPU that has slept for a while. Before each of them, the other CPU makes a
/// hypercall and sends itself an SGI.
const NAPS: u64 = 12;
/// Exit reasons and interrupts, and the expected number of each. In addition to its operations, the
/// guest turns one vCPU on, queries whether that vCPU is on, and turns the machine off. The vCPU
/// that takes the last SGI does not exit after that.
const COUNTS: &[(&str, u64)] = &[
    ("HVC", TURNS + NAPS + 3),
    ("system register write", TURNS + 2 * NAPS),
    ("SGI taken", TURNS + 2 * NAPS - 1),
    // LPIs from INT commands, and from the device for each vCPU.
    ("LPI taken", 3 * TURNS),
];

/// Maximum number of exits of an operation. An SGI causes one exit when it is sent, and one when
/// the other vCPU is kicked. An LPI from an INT command causes a write of `GITS_CWRITER` and a read
/// of `GITS_CREADR`. A device's MSI and the timer each cause one exit, for the physical interrupt.
const EXITS: &[(&str, u64)] =
    &[("hypercall", 1), ("register", 1), ("ipi", 2), ("lpi", 2), ("msi", 1), ("timer", 1)];
/// Lists the cases, which share one run of the guest.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        case("a guest's exits and interrupts are counted by reason", |run| {
            COUNTS.iter().try_for_each(|(reason, times)| judge(&run.counts, reason, *times))
        }),
        case("as many exits are printed as are counted", Run::compare),
    ];
    for &(operation, limit) in EXITS {
        let name = format!("a guest's {operation} takes at most {limit} exits");
        cases.push(case(&name, move |run| run.costs.judge_exits(operation, limit)));
    }
    cases
}

fn case(name: &str, judge: impl FnOnce(&Run) -> Result<()> + Send + 'static) -> Case {
    static RUN: Shared<Run> = Shared::new();
    built::case(name, LIMIT, || judge(RUN.get(Run::watch)?))
}

/// The results of a run that both counts and prints.
#[derive(Debug, Default)]
struct Run {
    costs: Costs,
    /// Counts by reason.
    counts: BTreeMap<String, u64>,
    printed: BTreeMap<String, u64>,
}

impl Run {
    fn watch() -> Result<Self> {
        let record = Record { exits: true, stats: true, ..Record::default() };
        let mut qemu = microbench::command(EACH, record, None)?;
        let mut run = Self::default();
        process::watch(&mut qemu, LIMIT, |line| {
            if let Some(fact) = Fact::parse(line) {
                run.fact(fact);
            }
        })?;
        Ok(run)
    }

    fn fact(&mut self, fact: Fact) {
        match &fact {
            Fact::Hypervisor(HypervisorFact::Count { reason, times, .. }) => {
                self.counts.insert(reason.to_string(), *times);
            }
            // The other vCPU may still exit after the first has turned the machine off.
            Fact::Hypervisor(HypervisorFact::Exit { reason, .. }) if self.counts.is_empty() => {
                *self.printed.entry(reason.to_string()).or_default() += 1;
            }
            _ => {}
        }
        self.costs.fact(fact);
    }

    /// Checks that the numbers of printed and counted exits are equal for each reason.
    fn compare(&self) -> Result<()> {
        ensure!(!self.printed.is_empty(), "no exits were printed");
        self.printed.iter().try_for_each(|(reason, times)| judge(&self.counts, reason, *times))
    }
}

fn judge(counts: &BTreeMap<String, u64>, reason: &str, times: u64) -> Result<()> {
    let found = *counts.get(reason).with_context(|| format!("{reason} was not counted"))?;
    ensure!(found == times, "{found} times {reason}, not {times}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_counts_that_differ_from_the_guests_fail() {
        let counts = BTreeMap::from([("ITS write".into(), 213)]);
        assert!(judge(&counts, "ITS write", 213).is_ok());
        assert!(judge(&counts, "ITS write", 212).is_err());
        assert!(judge(&counts, "WFI", 0).is_err());
        let printed = |times| BTreeMap::from([("ITS write".into(), times)]);
        let run = |printed| Run { counts: counts.clone(), printed, ..Run::default() };
        assert!(run(BTreeMap::new()).compare().is_err());
        assert!(run(printed(212)).compare().is_err());
        assert!(run(printed(213)).compare().is_ok());
    }
}
