//! The drivers on QEMU's `virt` machine. The image discovers the machine from its devicetree, and
//! brings up its GIC with its ITS or GICv2m frame by `gic-driver`. It serves the PCI devices by
//! `irq-domain`, and prints each test's result, a line each, on the console.
//!
//! The command line states what QEMU was told to be (`cpus=2 gic=3 …`); [`platform`] is all that
//! the drivers ask of a kernel.
#![no_std]
#![no_main]

extern crate alloc;

mod controller;
mod devices;
mod devicetree;
mod driver;
mod ledger;
mod machine;
mod platform;
mod report;
mod rig;
mod smmu;
mod smp;
mod soft_device;
mod tests;

use crate::report::Report;
use image_rt::{Boot, power, start};

image_rt::image!(main);

fn main(boot: Boot) -> ! {
    // SAFETY: what the loader handed over, before anything else.
    let around = unsafe { start::start(boot) };
    let blob = around.devicetree;
    let description = gic_firmware::devicetree::parse(blob).expect("firmware's description");
    let machine = machine::bring_up(description, &around, devicetree::smmu(blob));
    let mut report = Report::default();
    tests::run(machine, &devicetree::arguments(blob), &mut report);
    report.summarize();
    power::system_off()
}
