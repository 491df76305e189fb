//! Costs that the micro-benchmark of kvm-unit-tests prints.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Name of the program, which only measures operations and tests nothing.
pub(super) const NAME: &str = "micro-bench";
/// The operations that the program must have measured.
pub(super) const OPERATIONS: &[&str] =
    &["hyp_call", "mmio_read_user", "mmio_read_vgic", "eoi", "ipi", "lpi", "timer_10ms"];
/// The operation that does not exit to either hypervisor.
const WITHOUT_EXIT: &str = "eoi";
/// Instructions by which the costs of [`WITHOUT_EXIT`] may differ.
const TOLERANCE: f64 = 2.0;
/// Time limit of a run. A run waits for 256 timers of 10 ms and, under KVM, also boots Linux.
pub(super) const LIMIT: Duration = Duration::from_mins(10);

/// Costs of the operations, in instructions.
#[derive(Debug)]
pub(super) struct Costs {
    nanoseconds_per_instruction: f64,
    /// Operations, each with its mean cost.
    rows: Vec<(String, f64)>,
}

impl Costs {
    /// Creates the costs of a run that has not printed any yet.
    pub(super) const fn counted_by(nanoseconds_per_instruction: f64) -> Self {
        Self { nanoseconds_per_instruction, rows: Vec::new() }
    }

    /// Processes a line of output.
    pub(super) fn line(&mut self, line: &str) {
        if let [operation, _, average] = line.split_whitespace().collect::<Vec<_>>()[..]
            && OPERATIONS.contains(&operation)
            && let Ok(nanoseconds) = average.parse::<f64>()
        {
            self.rows.push((operation.into(), nanoseconds / self.nanoseconds_per_instruction));
        }
    }

    /// Checks that each operation was measured.
    pub(super) fn judge(&self) -> Result<()> {
        OPERATIONS.iter().try_for_each(|operation| self.of(operation).map(|_| ()))
    }

    fn of(&self, operation: &str) -> Result<f64> {
        let row = self.rows.iter().find(|(name, _)| name == operation);
        Ok(row.with_context(|| format!("{operation} was not measured"))?.1)
    }

    /// Checks that each operation is cheaper than on `kvm`, or costs the same if it does not exit.
    pub(super) fn judge_beside(&self, kvm: &Self) -> Result<()> {
        for operation in OPERATIONS {
            let (here, there) = (self.of(operation)?, kvm.of(operation)?);
            let most = if *operation == WITHOUT_EXIT { there + TOLERANCE } else { there };
            ensure!(here <= most, "{operation} costs {here:.0}, and {there:.0} on KVM");
        }
        Ok(())
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (operation, cost)) in self.rows.iter().enumerate() {
            write!(f, "{}{operation} {cost:.0}", if index > 0 { "; " } else { "" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(rows: &[(&str, f64)]) -> Costs {
        let mut costs = Costs::counted_by(2.0);
        for (name, cost) in rows {
            costs.line(&format!("{name}  100.0  {}", 2.0 * cost));
        }
        costs
    }

    #[test]
    fn costs_must_cover_every_operation() {
        let rows: Vec<_> = OPERATIONS.iter().map(|name| (*name, 10.0)).collect();
        costs(&rows).judge().unwrap();
        assert!(costs(&rows[1..]).judge().is_err());
        assert!(costs(&rows).judge_beside(&costs(&rows[1..])).is_err());
    }

    #[test]
    fn an_operation_must_not_cost_more_than_on_kvm() {
        let all = |cost| OPERATIONS.iter().map(move |name| (*name, cost));
        let there = costs(&all(10.0).collect::<Vec<_>>());
        costs(&all(10.0).collect::<Vec<_>>()).judge_beside(&there).unwrap();
        for dear in OPERATIONS {
            let here: Vec<_> = all(10.0)
                .map(|(name, cost)| (name, if name == *dear { 13.0 } else { cost }))
                .collect();
            assert!(costs(&here).judge_beside(&there).is_err(), "{dear}");
        }
    }
}
