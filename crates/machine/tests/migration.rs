//! The drivers on a machine whose interrupt controller is saved and restored at random moments, under load.

#![expect(clippy::unwrap_used, reason = "the embedded machines are known to be sound")]

use doorbell_machine::{
    BuildOptions, CpuLife, DeviceLife, Disturbances, Moves, RunOptions, TraceEvent, build, embedded,
    simulate_migrating,
};
use gic_firmware::devicetree;
use proptest::prelude::*;

/// Runs an embedded machine while everything changes; how often it was moved.
fn moved(name: &str, seed: u64, messages: u32) -> usize {
    let description = devicetree::parse(embedded::machine(name).unwrap().dtb).unwrap();
    let machine = build(&description, &BuildOptions::default()).unwrap();
    let disturbances =
        Disturbances { moves: Moves::Random, cpus: CpuLife::Replugged, devices: DeviceLife::Readded };
    let simulation = simulate_migrating(machine, &RunOptions { messages, seed, disturbances }).unwrap();
    let totals = simulation.report.totals;
    assert!(totals.is_clean(), "{name}, seed {seed}: {totals:?}");
    assert_eq!(totals.sent, totals.vectors * u64::from(messages));
    assert_eq!(simulation.report.model.guest_faults, 0);
    simulation.trace.iter().filter(|event| **event == TraceEvent::Migrated).count()
}

#[test]
fn nothing_is_lost_on_any_embedded_machine_that_is_moved_hundreds_of_times() {
    for machine in embedded::machines() {
        let times = moved(machine.name, 1, 20);
        assert!(times > 100, "{}: {times}", machine.name);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 0, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_whenever_the_machine_is_moved(seed in any::<u64>()) {
        moved("harbour", seed, 8);
    }
}
