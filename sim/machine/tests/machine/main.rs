//! Runs unmodified drivers on unmodified models, on machines with every combination of controllers
//! and devices that a devicetree can describe.

#![expect(clippy::unwrap_used, reason = "the tests' boards are known to be sound")]

mod board_trees;
mod bridge_masks;
mod bridges;
mod coherence;
mod controllers;
mod injected_faults;
mod limits;
mod matrix;
mod migration;
mod random_machines;
mod refused_machines;
mod replay;
mod shapes;
mod stress;
mod suspensions;
mod virtual_bus;

use doorbell_machine::{
    BuildOptions, DeviceReport, Disturbance, Migration, Report, RunOptions, build, run,
};
use gic_firmware::Description;

/// Returns options that enable all disturbances except suspensions.
fn everything(seed: u64, messages: u32) -> RunOptions {
    RunOptions { messages, seed, disturbances: Disturbance::AWAKE.into() }
}

fn embedded(name: &str) -> Description {
    doorbell_machine::embedded::machine(name).unwrap().firmware.describe().unwrap()
}

fn harbour() -> Description {
    embedded("harbour")
}

/// Returns the same options, except that the controller migrates repeatedly.
fn moving(options: &BuildOptions) -> BuildOptions {
    BuildOptions { migration: Migration::AtRandom { seed: 1 }, ..options.clone() }
}

/// Returns the migration mode for property tests, which draw it at random.
fn migration(migrates: bool, seed: u64) -> Migration {
    if migrates { Migration::AtRandom { seed } } else { Migration::Never }
}

/// Runs a machine twice, the second time with migrations. The result must be the same both times.
#[track_caller]
fn deliver_with(description: &Description, options: &BuildOptions, messages: u32) -> Report {
    let run_options = RunOptions { messages, ..RunOptions::default() };
    let report = run(build(description, options).unwrap(), &run_options, &mut |_| {}).unwrap();
    let moved =
        run(build(description, &moving(options)).unwrap(), &run_options, &mut |_| {}).unwrap();
    assert!(moved.totals.migrated > 0);
    assert_delivered_to(&moved, messages);
    assert_eq!(served(&moved), served(&report));
    report
}

/// Returns each device with its number of vectors and, if it was denied vectors, the reason.
fn served(report: &Report) -> Vec<(&str, usize, Option<&str>)> {
    let devices = report.devices.iter();
    devices.map(|device| (&*device.id, device.vectors.len(), device.refused.as_deref())).collect()
}

fn deliver(description: &Description) -> Report {
    deliver_with(description, &BuildOptions::default(), 60)
}

/// Asserts that the totals count every device that was denied vectors or has too few of them.
#[track_caller]
fn assert_refusals_are_counted(report: &Report) {
    let count = |is: fn(&DeviceReport) -> bool| {
        report.devices.iter().filter(|device| is(device)).count() as u64
    };
    let refused = count(|device| device.refused.is_some());
    assert_eq!(
        (report.totals.refused, report.totals.short),
        (refused, count(DeviceReport::is_short))
    );
}

/// Asserts that every message was sent and delivered without a fault, that the drivers concealed no
/// fault, and that every device has its vectors.
#[track_caller]
fn assert_delivered(report: &Report, messages: u32) {
    assert_delivered_to(report, messages);
    assert!(report.totals.is_clean(), "{:?}", report.totals);
    for device in &report.devices {
        assert_eq!(device.refused, None, "{}", device.id);
        assert!(!device.vectors.is_empty(), "{}", device.id);
    }
}

/// Like [`assert_delivered`], but ignores devices that were denied vectors.
#[track_caller]
fn assert_delivered_to(report: &Report, messages: u32) {
    assert!(report.totals.is_delivered(), "{:?}", report.totals);
    assert_eq!(report.totals.sent, report.totals.vectors * u64::from(messages));
    assert_eq!(report.totals.delivered + report.totals.coalesced, report.totals.sent);
}
