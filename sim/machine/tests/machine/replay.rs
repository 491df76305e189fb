//! Runs without threads: no order of events may lose a message, and the order must depend only on
//! the seed.

use crate::{board_trees, everything, harbour, migration};
use doorbell_machine::{BuildOptions, Migration, Simulation, TraceEvent, build, simulate};
use gic_firmware::{Description, MsiRouting};
use msi_types::DeviceId;
use proptest::prelude::*;
use std::num::NonZeroU16;

fn replay(board: &Description, migration: Migration, seed: u64, messages: u32) -> Simulation {
    let built = BuildOptions { migration, ..BuildOptions::default() };
    simulate(build(board, &built).unwrap(), &everything(seed, messages)).unwrap()
}

const MIGRATIONS: [Migration; 2] = [Migration::Never, Migration::AtRandom { seed: 5 }];

#[test]
fn the_same_seed_reproduces_the_trace() {
    for migration in MIGRATIONS {
        let [one, again] = [(); 2].map(|()| replay(&harbour(), migration, 7, 20));
        assert!(one.trace == again.trace);
        assert_eq!(one.report.totals, again.report.totals);
    }
}

#[test]
fn another_seed_changes_the_trace() {
    assert!(
        replay(&harbour(), MIGRATIONS[0], 7, 5).trace
            != replay(&harbour(), MIGRATIONS[0], 8, 5).trace
    );
    let moved = |seed| replay(&harbour(), Migration::AtRandom { seed }, 7, 5).trace;
    assert!(moved(1) != moved(2));
}

#[test]
fn the_trace_has_events_of_every_kind() {
    for migration in MIGRATIONS {
        let trace = replay(&harbour(), migration, 3, 40).trace;
        let has = |is: fn(&TraceEvent) -> bool| trace.iter().any(is);
        assert!(has(|event| matches!(event, TraceEvent::Sent { .. })));
        assert!(has(|event| matches!(event, TraceEvent::Took { .. })));
        assert!(has(|event| matches!(event, TraceEvent::Slept { .. })));
        assert!(has(|event| matches!(event, TraceEvent::Woke { .. })));
        assert!(has(|event| matches!(event, TraceEvent::Moved { .. })));
        assert!(has(|event| matches!(event, TraceEvent::Replugged { .. })));
        assert!(has(|event| matches!(event, TraceEvent::Readded { .. })));
        assert_eq!(has(|event| *event == TraceEvent::Migrated), migration != Migration::Never);
    }
}

/// Returns a board with two vectors and four CPUs, so that most of the interrupts are resends.
fn crowded() -> Description {
    let mut board = board_trees::bare(4, 1);
    board.devices = vec![board_trees::device(
        0x0b00_0000,
        MsiRouting::device(board_trees::its(0), DeviceId::new(1)),
    )];
    board
}

#[test]
fn messages_for_running_handler_are_redelivered() {
    for migration in MIGRATIONS {
        let totals = replay(&crowded(), migration, 1, 400).report.totals;
        assert!(totals.redelivered > 0 && totals.is_clean(), "{totals:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    #[ignore = "slow: `cargo xtask test --long` runs it"]
    fn every_simulated_order_delivers_all_messages_without_fault(
        seed: u64,
        cpus in 1u16..9,
        migrates: bool,
    ) {
        let migration = migration(migrates, seed);
        let options =
            BuildOptions { cpus: NonZeroU16::new(cpus), migration, ..BuildOptions::default() };
        let machine = build(&harbour(), &options).unwrap();
        let report = simulate(machine, &everything(seed, 25)).unwrap().report;
        prop_assert!(report.totals.is_clean(), "{:?}", report.totals);
        prop_assert_eq!(report.totals.sent, report.totals.vectors * 25);
    }

    #[test]
    fn every_simulated_order_is_clean_with_overtaken_handlers(seed: u64, migrates: bool) {
        let totals = replay(&crowded(), migration(migrates, seed), seed, 200).report.totals;
        prop_assert!(totals.is_clean(), "{totals:?}");
    }
}
