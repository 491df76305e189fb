//! Runs the drivers on a machine whose interrupt controller is saved and restored at random moments
//! under load, usually into a new model.

use crate::{assert_delivered, everything};
use doorbell_machine::{
    BuildOptions, LpiNumbers, Machine, Migration, RunOptions, build, embedded, run, simulate,
};
use proptest::prelude::*;
use std::num::NonZeroU16;

fn machine(name: &str, cpus: Option<u16>) -> Machine {
    let cpus = cpus.and_then(NonZeroU16::new);
    let migration = Migration::AtRandom { seed: 1 };
    // Keep the number of LPIs small, because a migration visits every direct LPI.
    let lpis = LpiNumbers::Few;
    let options = BuildOptions { cpus, migration, lpis, ..BuildOptions::default() };
    build(&crate::embedded(name), &options).unwrap()
}

#[test]
fn embedded_machines_survive_hundreds_of_migrations() {
    for embedded in embedded::machines() {
        let report = simulate(machine(embedded.name, None), &everything(1, 20)).unwrap();
        assert_delivered(&report, 20);
        assert!(report.totals.migrated > 100, "{}: {:?}", embedded.name, report.totals);
    }
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn embedded_machines_survive_migration_on_threads() {
    for embedded in embedded::machines() {
        let report = run(machine(embedded.name, None), &everything(1, 200), &mut |_| {}).unwrap();
        assert_delivered(&report, 200);
        let totals = report.totals;
        let happened = [totals.migrated, totals.moves, totals.replugged, totals.readded];
        assert!(happened.iter().all(|count| *count > 0), "{}: {totals:?}", embedded.name);
    }
}

/// No other disturbance makes a driver resend an interrupt, so a message that a migration loses
/// stays lost.
#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn migrations_alone_lose_no_message() {
    for embedded in embedded::machines() {
        let options = RunOptions { messages: 150, seed: 1, disturbances: Vec::new() };
        let report = run(machine(embedded.name, None), &options, &mut |_| {}).unwrap();
        assert_delivered(&report, 150);
        assert!(report.totals.migrated > 0, "{}: {:?}", embedded.name, report.totals);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 8,
        max_shrink_iters: 0,
        ..ProptestConfig::default()
    })]

    #[test]
    fn migration_at_any_time_loses_no_message(seed in any::<u64>(), cpus in 1..=8u16) {
        let report = simulate(machine("harbour", Some(cpus)), &everything(seed, 8)).unwrap();
        assert_delivered(&report, 8);
    }
}
