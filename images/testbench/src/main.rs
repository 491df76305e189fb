//! Driver tests on QEMU's `virt` and `imx8mp-evk` machines. The image discovers the machine from
//! its devicetree, brings up its GIC with its MSI controller through `gic-driver`, drives the PCI
//! devices through `irq-domain`, and prints one line per test on the console.
//!
//! The command line states how QEMU was configured (`cpus=2 gic=3 …`).
#![no_std]
#![no_main]

extern crate alloc;

mod board;
mod controller;
mod devices;
mod machine;
mod report;
mod rig;
mod smmu;
mod smp;
mod soft_device;
mod tests;

use crate::report::Report;
use gic_firmware::devicetree;
use image_rt::{Boot, power, start};

image_rt::image!(main);

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and `main` is called only once.
    let around = unsafe { start::start(boot) };
    let description = devicetree::parse(around.devicetree);
    let description = description.expect("the devicetree could not be parsed");
    let machine = machine::bring_up(description, &around);
    let mut report = Report::new();
    tests::run(machine, around.command_line(), boot, &mut report);
    report.summarize();
    power::system_off()
}
