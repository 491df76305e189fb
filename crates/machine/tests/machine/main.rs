//! Unmodified drivers on unmodified models, in machines of every shape that a devicetree can describe.

#![expect(clippy::unwrap_used, reason = "a test's own boards are known to be sound")]

mod boards;
mod coherence;
mod controllers;
mod limits;
mod populations;
mod refusals;
mod replay;
mod shapes;
mod stress;

use doorbell_machine::{BuildOptions, Machine, Report, RunOptions, build, embedded, run};
use gic_firmware::{Description, devicetree};

fn harbour() -> Description {
    devicetree::parse(embedded::machine("harbour").unwrap().dtb).unwrap()
}

fn machine(description: &Description) -> Machine {
    build(description, &BuildOptions::default()).unwrap()
}

fn deliver_with(description: &Description, options: &BuildOptions, messages: u32) -> Report {
    let machine = build(description, options).unwrap();
    run(machine, &RunOptions { messages, ..RunOptions::default() }, &mut |_| {}).unwrap()
}

fn deliver(description: &Description) -> Report {
    deliver_with(description, &BuildOptions::default(), 60)
}

/// Everything was sent, and nothing went wrong on the way, nor behind the drivers' backs.
#[track_caller]
fn assert_delivered(report: &Report, messages: u32) {
    assert!(report.totals.is_clean(), "{:?}", report.totals);
    assert_eq!(report.totals.sent, report.totals.vectors * u64::from(messages));
    assert_eq!(report.totals.delivered + report.totals.coalesced, report.totals.sent);
    assert_eq!(report.model.guest_faults, 0);
    for device in &report.devices {
        assert_eq!(device.refused, None, "{}", device.id);
        assert!(!device.vectors.is_empty(), "{}", device.id);
    }
}
