//! Runs without threads: no order of events may lose a message, and the order must depend only on
//! the seed.

use crate::{board_trees, everything, harbour, migration};
use doorbell_machine::{
    BuildOptions, Event, Migration, Occurrence, Record, Recorder, Report, TraceTime, build,
    simulate,
};
use gic_firmware::{Description, MsiRouting};
use msi_types::DeviceId;
use proptest::prelude::*;

/// Simulates a machine, and returns its report and its trace.
fn replay(
    board: &Description,
    migration: Migration,
    seed: u64,
    messages: u32,
) -> (Report, Vec<Record>) {
    let recorder = Recorder::new(TraceTime::Steps, u64::MAX);
    let built =
        BuildOptions { migration, recorder: Some(recorder.clone()), ..BuildOptions::default() };
    let report = simulate(build(board, &built).unwrap(), &everything(seed, messages)).unwrap();
    (report, recorder.take().records)
}

const MIGRATIONS: [Migration; 2] = [Migration::Never, Migration::AtRandom { seed: 5 }];

#[test]
fn the_same_seed_reproduces_the_trace() {
    for migration in MIGRATIONS {
        let [one, again] = [(); 2].map(|()| replay(&harbour(), migration, 7, 20));
        assert!(one.1 == again.1);
        assert_eq!(one.0.totals, again.0.totals);
    }
}

#[test]
fn another_seed_changes_the_trace() {
    let traced = |seed| replay(&harbour(), MIGRATIONS[0], seed, 5).1;
    assert!(traced(7) != traced(8));
    let moved = |seed| replay(&harbour(), Migration::AtRandom { seed }, 7, 5).1;
    assert!(moved(1) != moved(2));
}

#[test]
fn the_trace_has_events_of_every_kind() {
    for migration in MIGRATIONS {
        let (_, trace) = replay(&harbour(), migration, 3, 40);
        let has = |is: fn(Occurrence) -> bool| trace.iter().any(|record| is(record.what));
        let kinds: [fn(Occurrence) -> bool; 7] = [
            |what| matches!(what, Occurrence::Answered(_)),
            |what| matches!(what, Occurrence::Event(Event::Taken { .. })),
            |what| matches!(what, Occurrence::Slept { .. }),
            |what| matches!(what, Occurrence::Woke { .. }),
            |what| matches!(what, Occurrence::Event(Event::Moved { .. })),
            |what| matches!(what, Occurrence::Replugged { .. }),
            |what| what == Occurrence::Readded,
        ];
        assert_eq!(kinds.map(has), [true; 7]);
        assert_eq!(has(|what| what == Occurrence::Migrated), migration != Migration::Never);
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
        let totals = replay(&crowded(), migration, 1, 400).0.totals;
        assert!(totals.redelivered > 0 && totals.is_clean(), "{totals:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn every_simulated_order_is_clean_with_overtaken_handlers(seed: u64, migrates: bool) {
        let totals = replay(&crowded(), migration(migrates, seed), seed, 200).0.totals;
        prop_assert!(totals.is_clean(), "{totals:?}");
    }
}
