//! Large machines and long runs with real threads.

use crate::board_trees::{self, flashed, its};
use crate::{assert_delivered, deliver_with, harbour, moving};
use doorbell_machine::{
    BuildOptions, CpuHotplug, DeviceHotplug, Disturbances, Moves, Report, RunOptions, Suspensions,
    build, run,
};
use gic_firmware::MsiRouting;
use msi_types::DeviceId;

#[test]
fn sixty_four_cpus_and_eight_itses() {
    let mut board = board_trees::bare(64, 8);
    board.hosts =
        (0..8).map(|index| board_trees::host(index as u64, board_trees::parent(index))).collect();
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
fn messages_arrive_while_everything_changes() {
    let report = many_messages(&BuildOptions::default());
    assert_eq!(report.totals.migrated, 0);
}

#[test]
fn messages_survive_migrations() {
    let report = many_messages(&moving(&BuildOptions::default()));
    assert!(report.totals.migrated > 10, "{:?}", report.totals);
}

/// Delivers messages while all disturbances are active.
fn many_messages(built: &BuildOptions) -> Report {
    let disturbances = Disturbances {
        moves: Moves::Random,
        cpus: CpuHotplug::Replugged,
        devices: DeviceHotplug::Readded,
        suspensions: Suspensions::None,
    };
    let options = RunOptions { messages: 1_000, seed: 1, disturbances };
    let report = run(build(&harbour(), built).unwrap(), &options, &mut |_| {}).unwrap();
    assert_delivered(&report, 1_000);
    let happened = [report.totals.moves, report.totals.replugged, report.totals.readded];
    assert!(happened.iter().all(|count| *count > 10), "{:?}", report.totals);
    report
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
