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
