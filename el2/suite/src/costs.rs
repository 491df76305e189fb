//! Checks the cost of operations on a guest's virtual GIC, in instructions executed by guest and
//! hypervisor together. QEMU counts virtual time in instructions (`-icount`) and runs one CPU at a
//! time, so every run has the same results.

use std::fmt;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, HypervisorFact, MicrobenchFact, MonitorFact};

/// Number of times that the guest repeats each measured operation.
const TURNS: u64 = 200;
/// Maximum number of other exits during a measurement, for example because of the hypervisor's own
/// timer.
const OTHERS: u64 = 4;
/// Costs of operations as the guest prints them, and numbers of exits as its hypervisor prints
/// them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Costs {
    /// Instructions of each operation.
    instructions: Vec<(String, u64)>,
    /// Exits of each operation, for all its repetitions.
    exits: Vec<(String, u64)>,
    /// Exits printed since the operation began.
    printed: u64,
}

impl Costs {
    /// Returns recorded costs. Each row has an operation, its number of instructions, and the
    /// number of exits of all its repetitions.
    pub(crate) fn recorded(rows: &[(&str, u64, u64)]) -> Self {
        let instructions = rows.iter().map(|&(operation, cost, _)| (operation.to_owned(), cost));
        let exits = rows.iter().map(|&(operation, _, exits)| (operation.to_owned(), exits));
        Self { instructions: instructions.collect(), exits: exits.collect(), printed: 0 }
    }

    /// Processes a line of output.
    pub(crate) fn line(&mut self, line: &str) {
        if let Some(fact) = Fact::parse(line) {
            self.fact(fact);
        }
    }

    /// Processes a fact from the guest, the hypervisor or the monitor.
    pub(crate) fn fact(&mut self, fact: Fact) {
        match fact {
            Fact::Hypervisor(HypervisorFact::Exit { .. }) => self.printed += 1,
            Fact::Microbench(MicrobenchFact::Measures { .. }) => self.printed = 0,
            Fact::Microbench(MicrobenchFact::Cost { operation, nanoseconds }) => {
                if self.printed > 0 {
                    self.exits.push((operation.clone().into(), self.printed));
                }
                self.instructions.push((operation.into(), nanoseconds));
            }
            Fact::Monitor(MonitorFact::Exits { operation, exits }) => {
                self.exits.push((operation.into(), exits));
            }
            _ => {}
        }
    }

    /// Checks that the operation takes at most `limit` instructions.
    pub(crate) fn judge_instructions(&self, operation: &str, limit: u64) -> Result<()> {
        judge(&self.instructions, operation, limit)
    }

    /// Checks that the operation causes at most `limit` exits.
    pub(crate) fn judge_exits(&self, operation: &str, limit: u64) -> Result<()> {
        judge(&self.exits, operation, limit * TURNS + OTHERS)
    }

    /// Replaces the numbers of exits with those of another run.
    pub(crate) fn with_exits_of(self, other: Self) -> Self {
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

fn judge(costs: &[(String, u64)], operation: &str, limit: u64) -> Result<()> {
    let found = costs.iter().find(|(name, _)| name == operation);
    let (_, cost) = found.context("the guest did not measure this operation")?;
    ensure!(*cost <= limit, "it takes {cost}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(lines: &[&str]) -> Costs {
        let mut costs = Costs::default();
        for line in lines {
            costs.line(line);
        }
        costs
    }

    const EXIT: &str =
        r#"{"hypervisor":{"exit":{"at":8,"guest":0,"vcpu":1,"reason":"WFI","detail":""}}}"#;
    const MEASURES: &str = r#"{"microbench":{"measures":{"operation":"lpi"}}}"#;
    const COST: &str = r#"{"microbench":{"cost":{"operation":"lpi","nanoseconds":100}}}"#;
    const EXITS_OF_KVM: &str = r#"{"monitor":{"exits":{"operation":"lpi","exits":2}}}"#;

    #[test]
    fn costs_beyond_their_limit_fail() {
        let costs = costs(&[COST]);
        assert!(costs.judge_instructions("lpi", 100).is_ok());
        assert!(costs.judge_instructions("lpi", 99).is_err());
        assert!(costs.judge_instructions("ipi", 100).is_err());
    }

    #[test]
    fn only_exits_after_the_start_of_an_operation_are_counted() {
        let printed = costs(&[EXIT, MEASURES, EXIT, EXIT, "a line for people", COST]);
        let counted = costs(&[MEASURES, COST, EXITS_OF_KVM]);
        assert_eq!(printed.exits, counted.exits);
        assert_eq!(costs(&[COST]).with_exits_of(counted).exits, printed.exits);
    }
}
