//! The cost of the hot paths, beside floors and peers in the same process. Times differ between
//! machines, ratios hardly do. Every case is sampled in turn, so that disturbances meet all of them
//! alike.
#![forbid(unsafe_code)]

mod commands;
mod controllers;
mod dispatch;
mod floors;
mod injection;
mod model;
mod peers;
mod routes;

use doorbell_machine::RunError;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Options of a measurement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MeasureOptions {
    /// Samples of each case; of these, the median and the least are reported.
    pub rounds: u32,
    /// Programs that measure something else, sampled in turn with the cases here: `cases` on their
    /// standard input is answered by the cases' names, separated by spaces, and a name by the
    /// nanoseconds of one operation.
    pub peers: Vec<PathBuf>,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self { rounds: 301, peers: Vec::new() }
    }
}

/// Measured times.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Measurements {
    /// An uncontended `fetch_or`, in nanoseconds (median).
    pub floor_ns: f64,
    /// The cases.
    pub cases: Vec<Case>,
    /// Cases that cannot be measured here, with the reason.
    pub skipped: Vec<(String, String)>,
}

/// One measured case. Times in nanoseconds for one operation, models included.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Case {
    /// The measured operation:
    ///
    /// | name | one operation |
    /// |---|---|
    /// | `inject-1` | a message to the one event that is mapped, and pending already |
    /// | `inject-1-fresh` | a message to an event that is not pending; 64 are mapped |
    /// | `inject-64k-random` | a message to one of 2048 devices × 32 events in random order, none pending |
    /// | `inject-64k-random-pending` | the same, all pending |
    /// | `inject-64k-random-wide` | 32 devices × 2048 events, none pending |
    /// | `inject-2-threads` | as `inject-1`, by each of two threads with a device and a vCPU of its own |
    /// | `ack-32-priorities` | a message, `ICC_IAR1_EL1` and `ICC_EOIR1_EL1`, over 32 priorities pending together |
    /// | `inject-ack-depth-1`, `-57k` | the same, with so many LPIs pending |
    /// | `kick-asleep` | a vCPU falls asleep; a message, one kick (an eventfd write); the interrupt is taken |
    /// | `route-update-16`, `-4096` | one route of a table of that size changes |
    /// | `inject-by-gsi` | as `inject-1`, by a GSI that is routed there |
    /// | `int-command`, `sync-command` | one of 16384 in a queue; an INT's LPI is not pending |
    /// | `dispatch` | from INTID to a handler that does nothing |
    /// | `setup-*`, `move-*`, `deliver-*` | a controller: setting up a device by its vectors, one affinity change, one message from the device's store until its interrupt was handled and ended |
    /// | `floor-*` | for comparison: atomics, locks, maps, an eventfd, each alone and where said with a second thread at it |
    /// | `peer-*` | for comparison: others' code. `peer-qemu-*-command` are as `*-command`, of the QEMU that is installed |
    pub name: String,
    /// The median.
    pub median_ns: f64,
    /// The fastest.
    pub min_ns: f64,
    /// The median in units of [`of`](Self::of)'s.
    pub ratio: f64,
    /// The reference of the ratio.
    pub of: Reference,
}

/// The reference of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Reference {
    /// An uncontended `fetch_or` in L1.
    FetchOr,
    /// Another case.
    Case(&'static str),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FetchOr => "fetch_or",
            Self::Case(name) => name,
        })
    }
}

/// The reason for which nothing could be measured.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// The drivers failed.
    #[error(transparent)]
    Run(#[from] RunError),
    /// An embedded machine cannot be used: a defect of this crate.
    #[error("the embedded machine {0} cannot be measured: {1}")]
    Machine(&'static str, String),
    /// A case went wrong while it was measured.
    #[error("{0} cannot be measured: {1}")]
    Case(String, String),
}

/// A case that is being measured.
struct Probe {
    name: String,
    of: Reference,
    sample: Box<dyn FnMut() -> Result<f64, String>>,
    samples: Vec<f64>,
}

impl Probe {
    /// `sample` gives the nanoseconds of one operation.
    fn new(
        name: impl Into<String>,
        of: Reference,
        sample: impl FnMut() -> Result<f64, String> + 'static,
    ) -> Self {
        Self { name: name.into(), of, sample: Box::new(sample), samples: Vec::new() }
    }

    fn take(&mut self) -> Result<(), MeasureError> {
        // A fresh time slice: a sample that is interrupted by another process says nothing.
        std::thread::yield_now();
        let time =
            (self.sample)().map_err(|reason| MeasureError::Case(self.name.clone(), reason))?;
        self.samples.push(time);
        Ok(())
    }

    fn median_and_min(&mut self) -> (f64, f64) {
        self.samples.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| self.samples.get(index).copied().unwrap_or(0.0);
        (at(self.samples.len() / 2), at(0))
    }
}

/// Measures the hot paths, and each controller's vector set-up, affinity moves and delivery.
///
/// # Errors
/// The drivers failed, or an operation did.
pub fn measure(options: &MeasureOptions) -> Result<Measurements, MeasureError> {
    let mut floor = Probe::new("fetch_or", Reference::FetchOr, || Ok(floors::fetch_or()));
    let mut skipped = Vec::new();
    let mut probes = injection::probes()?;
    probes.extend(floors::probes());
    let one = |probe: Result<Probe, _>| probe.map(|probe| vec![probe]);
    let alone = [floors::eventfd(), injection::kick_asleep(), peers::kvm()].map(one);
    for optional in alone.into_iter().chain([commands::model(), commands::qemu(), routes::kvm()]) {
        match optional {
            Ok(several) => probes.extend(several),
            Err((name, reason)) => skipped.push((name.to_owned(), reason)),
        }
    }
    for program in &options.peers {
        match peers::program(&mut Command::new(program)) {
            Ok(several) => probes.extend(several),
            Err(reason) => skipped.push((program.display().to_string(), reason)),
        }
    }
    probes.extend(routes::probes()?);
    probes.push(dispatch::probe()?);
    probes.push(peers::locked_list());
    probes.extend(controllers::probes()?);
    for _ in 0..options.rounds.max(1) {
        floor.take()?;
        probes.iter_mut().try_for_each(Probe::take)?;
    }
    let (floor_ns, _) = floor.median_and_min();
    Ok(Measurements { floor_ns, cases: cases(probes, floor_ns), skipped })
}

fn cases(probes: Vec<Probe>, floor_ns: f64) -> Vec<Case> {
    let times = probes.into_iter().map(|mut probe| (probe.median_and_min(), probe));
    let times: Vec<_> = times.map(|(times, probe)| (times, probe.name, probe.of)).collect();
    let median_of =
        |name: &str| times.iter().find(|(_, of, _)| of == name).map(|((median, _), ..)| *median);
    let case = |((median_ns, min_ns), name, of): &((f64, f64), String, Reference)| {
        let reference = match of {
            Reference::FetchOr => Some(floor_ns),
            Reference::Case(name) => median_of(name),
        };
        let ratio = median_ns / reference.unwrap_or(floor_ns);
        Case { name: name.clone(), median_ns: *median_ns, min_ns: *min_ns, ratio, of: *of }
    };
    times.iter().map(case).collect()
}

/// Nanoseconds of one operation.
fn each(time: Duration, operations: u32) -> f64 {
    time.as_secs_f64() * 1e9 / f64::from(operations.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(name: &str, of: Reference, samples: &[f64]) -> Probe {
        let samples = samples.to_vec();
        Probe { samples, ..Probe::new(name, of, || Ok(0.0)) }
    }

    #[test]
    fn ratios_compare_medians_with_named_reference() {
        let probes = vec![
            probe("two", Reference::Case("one"), &[9.0, 6.0, 100.0]),
            probe("one", Reference::FetchOr, &[3.0, 1.0, 4.0]),
        ];

        let cases = cases(probes, 2.0);

        let facts: Vec<_> =
            cases.iter().map(|case| (case.median_ns, case.min_ns, case.ratio)).collect();
        assert_eq!(facts, [(9.0, 6.0, 3.0), (3.0, 1.0, 1.5)]);
    }

    #[test]
    fn every_case_of_the_contract_can_be_sampled() {
        let measured = measure(&MeasureOptions { rounds: 1, ..MeasureOptions::default() }).unwrap();

        let names: Vec<_> = measured.cases.iter().map(|case| case.name.as_str()).collect();
        for name in [
            "inject-1",
            "inject-64k-random",
            "inject-2-threads",
            "ack-32-priorities",
            "inject-ack-depth-1",
            "inject-ack-depth-57k",
            "kick-asleep",
            "route-update-16",
            "route-update-4096",
            "dispatch",
            "setup-its",
            "move-direct-lpi",
            "deliver-v2m",
        ] {
            let here = names.contains(&name)
                || measured.skipped.iter().any(|(skipped, _)| skipped == name);
            assert!(here, "{name} is not among {names:?}");
        }
        assert!(
            measured
                .cases
                .iter()
                .all(|case| case.ratio.is_finite() && case.min_ns <= case.median_ns)
        );
    }
}
