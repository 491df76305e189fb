//! Brings up a machine and delivers interrupts from all its devices: `deliver [FILE.dtb
//! [MESSAGES]]`.

use doorbell_machine::{BuildOptions, RunOptions, build, embedded, run};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let description = match arguments.next() {
        Some(file) => gic_firmware::devicetree::parse(&std::fs::read(file)?)?,
        None => embedded::machines()[0].firmware.describe()?,
    };
    let messages = arguments.next().map_or(Ok(100), |count| count.parse())?;
    let machine = build(&description, &BuildOptions::default())?;
    let report = run(machine, &RunOptions { messages, ..RunOptions::default() }, &mut |_| {})?;
    for device in &report.devices {
        let refused = device.refused.as_deref().unwrap_or("");
        println!(
            "{} {} at {}: {} vectors {refused}",
            device.id,
            device.kind,
            device.controller,
            device.vectors.len()
        );
    }
    for note in &report.notes {
        println!("note: {note}");
    }
    println!("{}: {} CPUs, {:?}, {:?}", report.machine, report.cpus, report.totals, report.elapsed);
    if report.totals.is_clean() {
        Ok(())
    } else {
        Err("some devices were refused vectors, or interrupts were lost or misdelivered".into())
    }
}
