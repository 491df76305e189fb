//! Measures the hot paths, and compares them with floors and peers in the same process. Times
//! differ between machines, and so do the ratios of times to floors: the cheaper a CPU's locked
//! operations are, the more the other instructions count. Ratios are therefore information, to be
//! read beside the time of a `fetch_or`, and budgets are for counted [`operations`]. The cases are
//! sampled in turn, so that disturbances affect all of them alike. Memory is laid out differently
//! in each process, so the results of several processes are [merged](Measurements::merged).
#![forbid(unsafe_code)]

mod commands;
mod dispatch;
mod floors;
mod injection;
mod list_registers;
mod measurements;
mod model;
pub mod operations;
mod peers;
mod probe;
mod routes;

pub use measurements::{Case, Measurements, Skipped};
pub use probe::MeasureError;

use measurements::FETCH_OR;
use probe::{Probe, named};
use std::path::PathBuf;
use std::process::Command;

/// Measurement options.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MeasureOptions {
    /// Number of samples per case. The median is reported.
    pub rounds: u32,
    /// Programs that measure other implementations, sampled in turn with this crate's cases. A
    /// program must answer the line `cases` with the names of its cases, separated by spaces, and
    /// each name with that case's nanoseconds per operation.
    pub peers: Vec<PathBuf>,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self { rounds: 101, peers: Vec::new() }
    }
}

/// Measures the hot paths.
///
/// # Errors
/// Returns an error if a driver or an operation fails.
pub fn measure(options: &MeasureOptions) -> Result<Measurements, MeasureError> {
    let mut baseline = probe::floor(FETCH_OR, || Ok(floors::fetch_or()));
    let mut skipped = Vec::new();
    let mut probes = injection::probes()?;
    probes.extend(floors::probes());
    let alone = [
        (floors::EVENTFD, floors::eventfd()),
        (injection::KICK, injection::kick_asleep()),
        (peers::KVM, peers::kvm()),
        (commands::CASE, commands::qemu()),
    ];
    let alone = alone.map(|(name, probe)| (name.to_owned(), probe.map(|probe| vec![probe])));
    let program = |program: &PathBuf| {
        (program.display().to_string(), peers::program(&mut Command::new(program)))
    };
    let programs = options.peers.iter().map(program);
    let routes = (routes::KVM.to_owned(), routes::kvm());
    for (name, optional) in alone.into_iter().chain([routes]).chain(programs) {
        match optional {
            Ok(several) => probes.extend(several),
            Err(reason) => skipped.push(Skipped { name, reason: reason.to_string() }),
        }
    }
    probes.extend(routes::probes()?);
    probes.extend(list_registers::probes()?);
    probes.push(named(dispatch::NAME, dispatch::probe())?);
    probes.push(peers::locked_list());
    for _ in 0..options.rounds.max(1) {
        baseline.take()?;
        probes.iter_mut().try_for_each(Probe::take)?;
    }
    let cases =
        probes.into_iter().map(|probe| Case::new(probe.name.clone(), probe.of, probe.median()));
    Ok(Measurements::new(baseline.median(), cases.collect(), skipped))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_compared_with_its_floor() {
        let measured = measure(&MeasureOptions { rounds: 1, ..MeasureOptions::default() }).unwrap();
        for (name, floor) in [
            ("inject-1", "floor-translate-1"),
            ("inject-1-fresh", "floor-translate-64-fresh"),
            ("inject-64k-random", "floor-translate-64k-fresh"),
            ("inject-ack-depth-1", "floor-send-take"),
            ("inject-ack-depth-57k", "floor-send-take"),
            ("kick-asleep", "floor-eventfd-write"),
            ("route-update-4096", "route-update-16"),
            ("dispatch", "floor-dispatch"),
            ("enter-0", "floor-enter"),
            ("exit-4", "floor-enter"),
        ] {
            let case = measured.cases.iter().find(|case| case.name == name).unwrap();
            assert_eq!(case.of, floor, "{name}");
        }
        assert!(measured.cases.iter().all(|case| case.ratio.is_finite() && case.ratio > 0.0));
    }
}
