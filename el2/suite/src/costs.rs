//! Checks the cost of operations on a guest's virtual GIC, in instructions executed by guest and
//! hypervisor together. QEMU counts virtual time in instructions (`-icount`) and runs one CPU at a
//! time, so every run has the same results.

use std::fmt;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Fact, MicrobenchFact};

use crate::output::Output;

/// Number of times that the guest repeats each measured operation.
const TURNS: u64 = 200;
/// Maximum number of other exits during a measurement, for example because of the hypervisor's own
/// timer.
const OTHERS: u64 = 4;

/// Costs of operations as the guest prints them, and numbers of exits as its hypervisor counts
/// them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Costs {
    /// Instructions of each operation.
    instructions: Vec<(String, u64)>,
    /// Exits of each operation, for all its repetitions.
    pub(crate) exits: Vec<(String, u64)>,
}

impl Costs {
    /// Returns recorded costs. Each row has an operation, its number of instructions, and the
    /// number of exits of all its repetitions.
    pub(crate) fn recorded(rows: &[(&str, u64, u64)]) -> Self {
        let instructions = rows.iter().map(|&(operation, cost, _)| (operation.to_owned(), cost));
        let exits = rows.iter().map(|&(operation, _, exits)| (operation.to_owned(), exits));
        Self { instructions: instructions.collect(), exits: exits.collect() }
    }

    /// Returns costs without numbers of exits.
    pub(crate) const fn counted(instructions: Vec<(String, u64)>) -> Self {
        Self { instructions, exits: Vec::new() }
    }

    /// Returns the costs that the guest stated.
    pub(crate) fn of(output: &Output) -> Self {
        let mut costs = Self::default();
        for (_, fact) in &output.facts {
            match fact {
                Fact::Microbench(MicrobenchFact::Cost { operation, nanoseconds }) => {
                    costs.instructions.push((operation.to_string(), *nanoseconds));
                }
                Fact::Microbench(MicrobenchFact::Exits { operation, exits }) => {
                    costs.exits.push((operation.to_string(), *exits));
                }
                _ => {}
            }
        }
        costs
    }

    /// Checks that the operation takes at most `limit` instructions.
    pub(crate) fn judge_instructions(&self, operation: &str, limit: u64) -> Result<()> {
        judge(self.instructions_of(operation)?, limit)
    }

    /// Checks that the operation causes at most `limit` exits.
    pub(crate) fn judge_exits(&self, operation: &str, limit: u64) -> Result<()> {
        judge(self.exits_of(operation)?, limit * TURNS + OTHERS)
    }

    /// Returns the instructions of an operation.
    pub(crate) fn instructions_of(&self, operation: &str) -> Result<u64> {
        cost(&self.instructions, operation)
    }

    /// Returns the number of exits of all repetitions of an operation.
    pub(crate) fn exits_of(&self, operation: &str) -> Result<u64> {
        cost(&self.exits, operation)
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (operation, cost)) in self.instructions.iter().enumerate() {
            let separator = if index > 0 { "; " } else { "" };
            write!(f, "{separator}{operation} {cost}")?;
            if let Ok(exits) = self.exits_of(operation) {
                write!(f, " in {}.{:02} exits", exits / TURNS, exits % TURNS * 100 / TURNS)?;
            }
        }
        Ok(())
    }
}

fn judge(cost: u64, limit: u64) -> Result<()> {
    ensure!(cost <= limit, "it takes {cost}");
    Ok(())
}

fn cost(costs: &[(String, u64)], operation: &str) -> Result<u64> {
    let found = costs.iter().find(|(name, _)| name == operation);
    Ok(found.with_context(|| format!("the guest did not measure {operation}"))?.1)
}
