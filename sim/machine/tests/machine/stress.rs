//! Large machines and long runs with real threads.

use crate::board_trees::{self, flashed, its};
use crate::{assert_delivered, deliver_with, everything, harbour, migration};
use doorbell_machine::{BuildOptions, build, run};
use gic_firmware::MsiRouting;
use msi_types::DeviceId;

#[test]
fn sixty_four_cpus_and_eight_itses_deliver_every_message() {
    let mut board = board_trees::bridged(64, 8);
    board.devices = (0..8u32)
        .map(|index| {
            let routing = MsiRouting::device(its(index as usize), DeviceId::new(0xf000 + index));
            board_trees::device(0x0b00_0000 + u64::from(index) * 0x1000, routing)
        })
        .collect();
    let report = deliver_with(&flashed(&board), &BuildOptions::default(), 60);
    assert_delivered(&report, 60);
    assert_eq!((report.cpus, report.controllers.len()), (64, 8));
}

#[test]
fn messages_arrive_during_moves_hotplug_and_migration() {
    for migrates in [false, true] {
        let migration = migration(migrates, 1);
        let options = BuildOptions { migration, ..BuildOptions::default() };
        let machine = build(&harbour(), &options).unwrap();
        let report = run(machine, &everything(1, 1_000), &mut |_| {}).unwrap();
        assert_delivered(&report, 1_000);
        let totals = report.totals;
        let happened = [totals.moves, totals.replugged, totals.readded];
        assert!(happened.iter().all(|count| *count > 0), "{totals:?}");
        assert_eq!(totals.migrated > 0, migrates, "{totals:?}");
    }
}

/// The machine has only two vectors, so a CPU that misses its kick is unlikely to be woken by
/// another interrupt.
#[test]
fn sleeping_cpu_wakes_for_each_message() {
    let mut board = board_trees::bare(1, 1);
    board.devices =
        vec![board_trees::device(0x0b00_0000, MsiRouting::device(its(0), DeviceId::new(1)))];
    assert_delivered(&deliver_with(&flashed(&board), &BuildOptions::default(), 3000), 3000);
}
