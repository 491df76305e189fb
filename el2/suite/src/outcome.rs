//! What the hypervisor states about its only guest's machine.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use doorbell_facts::{Ending, Fact, HypervisorFact};

/// The hypervisor's statements while the guest runs, and at its end.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) faults: Vec<String>,
    pub(crate) moves: u64,
    /// At the time limit, a typed character waited whose interrupt the guest had cleared.
    pub(crate) silent_input: bool,
    ending: Option<Ending>,
    /// Exits and interrupts by reason.
    counts: BTreeMap<String, u64>,
}

impl Outcome {
    /// Processes a line of output.
    pub(crate) fn line(&mut self, line: &str) {
        let Some(Fact::Hypervisor(fact)) = Fact::parse(line) else { return };
        match fact {
            HypervisorFact::Count { reason, times, .. } => {
                self.counts.insert(reason.into(), times);
            }
            HypervisorFact::Fault { fault, .. } => self.faults.push(fault.into()),
            HypervisorFact::TimeOver { silent_input } => self.silent_input = silent_input,
            HypervisorFact::Moved { times, grown: 0 } => self.moves = times,
            HypervisorFact::Ended { how, .. } => self.ending = Some(how),
            _ => {}
        }
    }

    /// Returns the number of interrupts of a kind, such as `PPI`, that the guest took.
    pub(crate) fn taken(&self, kind: &str) -> u64 {
        self.counts.get(&format!("{kind} taken")).copied().unwrap_or(0)
    }

    /// Checks that the guest turned its machine off, and that it was moved at least this often.
    pub(crate) fn judge(&self, moves: u64) -> Result<()> {
        ensure!(self.ending == Some(Ending::Off), "the machine ended by {:?}", self.ending);
        ensure!(self.moves >= moves, "{} moves, not {moves}", self.moves);
        Ok(())
    }

    /// Checks that the guest made no mistake.
    pub(crate) fn judge_faults(&self) -> Result<()> {
        ensure!(self.faults.is_empty(), "faults: {:?}", self.faults);
        Ok(())
    }
}

/// Lines of the hypervisor, for the tests of the kernels' reports.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) const MOVED: &str = r#"{"hypervisor":{"moved":{"times":12,"grown":0}}}"#;
    pub(crate) const OFF: &str = r#"{"hypervisor":{"ended":{"guest":0,"how":"off"}}}"#;

    /// Returns the line that counts interrupts of a kind.
    pub(crate) fn taken(kind: &str, times: u64) -> String {
        let reason = format!("{kind} taken").into();
        let count = HypervisorFact::Count { guest: 0, reason, times, longest: 0 };
        Fact::from(count).to_string()
    }

    /// Checks that these lines pass, and that they fail without any one of them.
    pub(crate) fn needs_each<T, L: Clone>(lines: &[L], judged: impl Fn(&[L]) -> Result<T>) {
        judged(lines).unwrap();
        for missing in 0..lines.len() {
            let mut lines = lines.to_vec();
            lines.remove(missing);
            assert!(judged(&lines).is_err(), "without line {missing}");
        }
    }
}
