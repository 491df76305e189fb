//! Machines of every shape that a devicetree can describe.

use doorbell_machine::{BuildOptions, Report, RunOptions, build, embedded, run};
use gic_firmware::devicetree;

fn harbour() -> gic_firmware::Description {
    devicetree::parse(embedded::machine("harbour").unwrap().dtb).unwrap()
}

fn deliver(description: &gic_firmware::Description, options: &BuildOptions, messages: u32) -> Report {
    let machine = build(description, options).unwrap();
    run(machine, &RunOptions { messages, ..RunOptions::default() }, &mut |_| {}).unwrap()
}

#[test]
fn the_embedded_machine_delivers_everything() {
    let report = deliver(&harbour(), &BuildOptions::default(), 100);
    println!("{:#?}", report);
    assert!(report.totals.is_clean(), "{:?}", report.totals);
}

#[test]
fn with_everything_going_on_nothing_is_lost() {
    let machine = build(&harbour(), &BuildOptions::default()).unwrap();
    let disturbances = doorbell_machine::Disturbances {
        moves: doorbell_machine::Moves::Random,
        cpus: doorbell_machine::CpuLife::Replugged,
        devices: doorbell_machine::DeviceLife::Readded,
    };
    let report =
        run(machine, &RunOptions { messages: 300, disturbances, ..RunOptions::default() }, &mut |_| {})
            .unwrap();
    println!("{:#?} {:?}", report.totals, report.model);
    assert!(report.totals.is_clean(), "{:?}", report.totals);
}

#[test]
fn simulation() {
    let disturbances = doorbell_machine::Disturbances {
        moves: doorbell_machine::Moves::Random,
        cpus: doorbell_machine::CpuLife::Replugged,
        devices: doorbell_machine::DeviceLife::Readded,
    };
    let simulate = |seed| {
        let machine = build(&harbour(), &BuildOptions::default()).unwrap();
        doorbell_machine::simulate(machine, &RunOptions { messages: 30, seed, disturbances }).unwrap()
    };
    let (one, again) = (simulate(5), simulate(5));
    println!("{:#?} {:?} {}", one.report.totals, one.report.model, one.trace.len());
    assert!(one.report.totals.is_clean(), "{:?}", one.report.totals);
    assert!(one.trace == again.trace);
}
