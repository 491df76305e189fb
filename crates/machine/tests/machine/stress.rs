//! Large machines and long runs, with real threads.

use crate::boards::{self, flashed, its};
use crate::{assert_delivered, deliver_with, harbour, machine};
use doorbell_machine::{BuildOptions, CpuLife, DeviceLife, Disturbances, Moves, RunOptions, run};
use gic_firmware::MsiRouting;
use msi_types::DeviceId;

#[test]
fn sixty_four_cpus_and_eight_itses() {
    let mut board = boards::bare(64, 8);
    board.hosts = (0..8).map(|index| boards::host(index as u64, boards::parent(index))).collect();
    board.devices = (0..8u32)
        .map(|index| {
            let routing = MsiRouting::device(its(index as usize), DeviceId::new(0xf000 + index));
            boards::device(0x0b00_0000 + u64::from(index) * 0x1000, routing)
        })
        .collect();
    let report = deliver_with(&flashed(&board), &BuildOptions::default(), 60);
    assert_delivered(&report, 60);
    assert_eq!((report.cpus, report.controllers.len()), (64, 8));
}

#[test]
fn a_million_messages_while_everything_changes() {
    let disturbances =
        Disturbances { moves: Moves::Random, cpus: CpuLife::Replugged, devices: DeviceLife::Readded };
    let options = RunOptions { messages: 7400, seed: 1, disturbances };
    let report = run(machine(&harbour()), &options, &mut |_| {}).unwrap();
    assert_delivered(&report, 7400);
    assert!(report.totals.sent >= 1_000_000, "{:?}", report.totals);
    let happened = [report.totals.moves, report.totals.replugged, report.totals.readded];
    assert!(happened.iter().all(|count| *count > 10), "{:?}", report.totals);
}

/// With two vectors and nothing else on the machine, a CPU that misses its kick is woken by nobody else.
#[test]
fn a_cpu_that_sleeps_between_messages_is_woken_for_each() {
    let mut board = boards::bare(1, 1);
    board.devices = vec![boards::device(0x0b00_0000, MsiRouting::device(its(0), DeviceId::new(1)))];
    assert_delivered(&deliver_with(&flashed(&board), &BuildOptions::default(), 3000), 3000);
}
