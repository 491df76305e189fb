//! Results of one process, and their merge over several processes.

use serde::{Deserialize, Serialize};

/// Name of the baseline. The baseline's time depends only on the machine.
pub(crate) const FETCH_OR: &str = "fetch_or";

/// Measured times.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Measurements {
    /// Time of an uncontended `fetch_or`, in nanoseconds (median).
    pub floor_ns: f64,
    /// The measured cases.
    pub cases: Vec<Case>,
    /// The cases that can't be measured on this machine.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<Skipped>,
}

/// A measured case. Times are in nanoseconds per operation.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Case {
    /// The measured operation:
    ///
    /// | name | one operation |
    /// |---|---|
    /// | `inject-1` | a message to the one event that is mapped, and pending already |
    /// | `inject-1-fresh` | a message to an event that is not pending; 64 are mapped |
    /// | `inject-64k-random` | a message to one of 2048 devices × 32 events in random order, none pending |
    /// | `inject-ack-depth-1`, `-57k` | a message, `ICC_IAR1_EL1` and `ICC_EOIR1_EL1`, with so many LPIs pending |
    /// | `kick-asleep` | a vCPU falls asleep; a message, one kick (an eventfd write); the interrupt is taken |
    /// | `enter-0`, `-1`, `-4`, `-16` | a vCPU with 16 list registers enters the guest, with so many LPIs pending |
    /// | `exit-0`, `-1`, `-4` | it exits, and the guest has ended so many |
    /// | `route-update-16`, `-4096` | one route of a table of that size changes, which is in the caches |
    /// | `dispatch` | from INTID to a handler that does nothing |
    /// | `floor-*` | for comparison: the least accesses to memory that the work needs, and an eventfd |
    /// | `peer-*` | for comparison: others' code. `peer-qemu-int-command` is one of 16384 INTs in a queue, whose LPIs are not pending |
    pub name: String,
    /// Median of the samples; for several processes, the median of the processes' medians.
    pub median_ns: f64,
    /// The lowest of the processes' medians.
    pub min_ns: f64,
    /// Ratio of [`min_ns`](Self::min_ns) to the reference's `min_ns`; see [`of`](Self::of).
    pub ratio: f64,
    /// Reference of the ratio: another case, or `fetch_or`.
    pub of: String,
}

/// A case that can't be measured on this machine.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Skipped {
    /// Name of the first case of a group that can't be measured, or path of a peer program.
    pub name: String,
    /// The reason why the case can't be measured.
    pub reason: String,
}

impl Case {
    /// Creates a case from one process, without its ratio.
    pub(crate) fn new(name: String, of: &str, median_ns: f64) -> Self {
        Self { name, median_ns, min_ns: median_ns, ratio: 0.0, of: of.to_owned() }
    }
}

impl Measurements {
    pub(crate) fn new(floor_ns: f64, cases: Vec<Case>, skipped: Vec<Skipped>) -> Self {
        Self { floor_ns, cases, skipped }.compared(floor_ns)
    }

    /// Merges the measurements of several processes. Returns `None` if `processes` is empty. Cases
    /// that some processes did not measure are omitted.
    pub fn merged(processes: &[Self]) -> Option<Self> {
        let first = processes.first()?;
        let case = |case: &Case| {
            let same = |one: &Self| one.cases.iter().find(|other| other.name == case.name).cloned();
            let all: Vec<_> = processes.iter().map(same).collect::<Option<_>>()?;
            let (median_ns, min_ns) = median_and_least(all.iter().map(|case| case.median_ns));
            Some(Case { median_ns, min_ns, ..case.clone() })
        };
        let cases = first.cases.iter().filter_map(case).collect();
        let (floor_ns, least) = median_and_least(processes.iter().map(|one| one.floor_ns));
        let merged = Self { floor_ns, cases, skipped: first.skipped.clone() };
        Some(merged.compared(least))
    }

    /// Computes each case's ratio to its reference, or to `fetch_or` if the reference was not
    /// measured.
    fn compared(mut self, fetch_or_ns: f64) -> Self {
        let least: Vec<_> =
            self.cases.iter().map(|case| (case.name.clone(), case.min_ns)).collect();
        for case in &mut self.cases {
            let of = least.iter().find(|(name, _)| *name == case.of).map(|(_, least)| *least);
            if of.is_none() {
                FETCH_OR.clone_into(&mut case.of);
            }
            case.ratio = case.min_ns / of.unwrap_or(fetch_or_ns);
        }
        self
    }
}

fn median_and_least(times: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| times.get(index).copied().unwrap_or(0.0);
    (at(times.len() / 2), at(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(floor_ns: f64, cases: &[(&str, f64, &str)]) -> Measurements {
        let case = |(name, time, of): &(&str, f64, &str)| Case::new((*name).to_owned(), of, *time);
        Measurements::new(floor_ns, cases.iter().map(case).collect(), Vec::new())
    }

    fn facts(measured: &Measurements) -> Vec<(&str, f64, f64, f64, &str)> {
        let mut facts = Vec::new();
        for Case { name, median_ns, min_ns, ratio, of } in &measured.cases {
            facts.push((name.as_str(), *median_ns, *min_ns, *ratio, of.as_str()));
        }
        facts
    }

    #[test]
    fn ratios_divide_the_lowest_median_by_that_of_the_named_reference() {
        let processes = [
            process(2.0, &[("two", 9.0, "one"), ("one", 4.0, FETCH_OR)]),
            process(4.0, &[("two", 6.0, "one"), ("one", 5.0, FETCH_OR)]),
            process(3.0, &[("two", 8.0, "one"), ("one", 3.0, FETCH_OR)]),
        ];

        let merged = Measurements::merged(&processes).unwrap();

        assert_eq!(
            facts(&merged),
            [("two", 8.0, 6.0, 2.0, "one"), ("one", 4.0, 3.0, 1.5, FETCH_OR)]
        );
        assert!((merged.floor_ns - 3.0).abs() < f64::EPSILON);
    }
}
