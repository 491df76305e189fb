//! Measures the hot paths, and compares them with floors and peers in the same process. Times
//! differ between machines, and so do the ratios of times to floors: the cheaper a CPU's locked
//! operations are, the more the other instructions count. Ratios are therefore information, to be
//! read beside the time of a `fetch_or`, and budgets are for counted [`operations`]. The cases are
//! sampled in turn, so that disturbances affect all of them alike, and only while no other hardware
//! thread uses the core. Memory is laid out differently in each process, so the results of several
//! processes are [merged](Measurements::merged).
#![forbid(unsafe_code)]

mod bring_up;
mod commands;
mod controllers;
mod dispatch;
mod floors;
pub mod growth;
mod injection;
mod list_registers;
mod masks;
mod measurements;
mod model;
mod neighbor;
pub mod operations;
mod peers;
mod probe;
mod routes;
mod word;

pub use measurements::{Case, Measurements, Skipped};
pub use probe::MeasureError;

use neighbor::Neighbor;
use probe::{Probe, Reference};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

/// Maximum mean time per round spent waiting until the core's other hardware threads are idle.
const PATIENCE: Duration = Duration::from_millis(300);

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

/// Measures the hot paths, and each controller's vector setup, affinity moves and delivery.
///
/// # Errors
/// Returns an error if a driver or an operation fails.
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
            Err((name, reason)) => skipped.push(Skipped { name: name.to_owned(), reason }),
        }
    }
    for program in &options.peers {
        match peers::program(&mut Command::new(program)) {
            Ok(several) => probes.extend(several),
            Err(reason) => skipped.push(Skipped { name: program.display().to_string(), reason }),
        }
    }
    probes.extend(routes::probes()?);
    probes.extend(list_registers::probes()?);
    probes.push(dispatch::probe()?);
    probes.push(peers::locked_list());
    probes.extend(controllers::probes()?);
    probes.push(bring_up::probe()?);
    probes.extend(masks::probes()?);
    let rounds = options.rounds.max(1);
    let mut neighbor = Neighbor::new(PATIENCE * rounds);
    for _ in 0..rounds {
        floor.take(&mut neighbor)?;
        probes.iter_mut().try_for_each(|probe| probe.take(&mut neighbor))?;
    }
    let cases = probes.into_iter().map(|probe| {
        let (name, of) = (probe.name.clone(), probe.of.name());
        Case::new(name, probe.median(), of)
    });
    let measured = Measurements::new(floor.median(), cases.collect(), skipped);
    Ok(Measurements { disturbed: neighbor.suffered(), ..measured })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cases, each with its floor.
    const FLOORS: [(&str, &str); 18] = [
        ("inject-1", "floor-translate-1"),
        ("inject-1-fresh", "floor-translate-64-fresh"),
        ("inject-64k-random", "floor-translate-64k-fresh"),
        ("inject-64k-random-wide", "floor-translate-64k-fresh"),
        ("inject-64k-random-pending", "floor-translate-64k"),
        ("inject-2-threads", "inject-1"),
        ("send-take-2-threads", "floor-send-take-2-threads"),
        ("inject-by-gsi", "inject-1"),
        ("ack-32-priorities", "floor-send-take"),
        ("inject-ack-depth-1", "floor-send-take"),
        ("inject-ack-depth-57k", "floor-send-take"),
        ("kick-asleep", "floor-eventfd-write"),
        ("route-update-4096", "route-update-16"),
        ("dispatch", "floor-dispatch"),
        ("mask-command-8", "floor-mask-8"),
        ("mask-register-8", "floor-mask-8"),
        ("enter-0", "floor-enter"),
        ("enter-exit-57k", "enter-exit-16"),
    ];

    /// Cases that need KVM, and their floors.
    const KVM_FLOORS: [(&str, &str); 7] = [
        ("floor-irqfd-assign", "peer-kvm-table-each-1024"),
        ("floor-irqfd-deassign", "peer-kvm-table-each-1024"),
        ("unmask-1024", "peer-kvm-table-each-1024"),
        ("unmask-1024-bound", "peer-kvm-table-each-1024"),
        ("unmask-1024-rung", "peer-kvm-table-each-1024"),
        ("release-1024", "peer-kvm-table-each-1024"),
        ("release-1024-bound", "floor-irqfd-deassign"),
    ];

    #[test]
    fn cases_of_the_contract_are_measured_or_skipped() {
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
            "enter-0",
            "exit-4",
            "setup-its",
            "setup-1024",
            "move-direct-lpi",
            "deliver-v2m",
        ] {
            let here = names.contains(&name)
                || measured.skipped.iter().any(|skipped| skipped.name == name);
            assert!(here, "{name} is not among {names:?}");
        }
        let of = |name: &str| measured.cases.iter().find(|case| case.name == name).unwrap();
        let has_kvm = measured.skipped.iter().all(|skipped| !skipped.name.starts_with("peer-kvm"));
        for (name, floor) in FLOORS.iter().chain(KVM_FLOORS.iter().filter(|_| has_kvm)) {
            assert_eq!(of(name).of, *floor, "{name}");
        }
        assert!(measured.cases.iter().all(|case| case.ratio.is_finite() && case.ratio > 0.0));
    }
}
