//! The drivers on QEMU's `virt` machine: an image that discovers the machine from its devicetree, brings up its GIC with
//! its ITS or GICv2m frame by `gic-driver`, serves its PCI devices by `irq-domain`, and says how each test went, a line each, on the console.
//!
//! The command line states what QEMU was told to be (`cpus=2 gic=3 …`); [`platform`] is all that the drivers ask of a
//! kernel.
#![no_std]
#![no_main]

extern crate alloc;

mod controller;
mod devices;
mod devicetree;
mod ledger;
mod machine;
mod pci;
mod platform;
mod report;
mod rig;
mod smmu;
mod smp;
mod soft_device;
mod tests;

use crate::devicetree::Surroundings;
use crate::report::Report;
use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use image_rt::power::Conduit;
use image_rt::{Boot, console, cpu, heap, memory, power, println};

image_rt::image!(main);

fn main(boot: Boot) -> ! {
    console::init();
    let guess = if cpu::level() == cpu::Level::El2 { Conduit::Smc } else { Conduit::Hvc };
    power::set_conduit(boot.conduit.unwrap_or(guess));
    // SAFETY: the loader put it there, outside of the image and, by `free_memory`, of the heap.
    let blob = unsafe { devicetree::blob(boot.devicetree) };
    let around = Surroundings::read(blob).expect("a devicetree");
    // SAFETY: RAM behind the image and before the devicetree, or all behind the image.
    unsafe { heap::init(free_memory(&around, boot.devicetree)) };
    power::set_conduit(boot.conduit.unwrap_or(around.conduit));
    let description = gic_firmware::devicetree::parse(blob).expect("firmware's description");
    let machine = machine::bring_up(description, &around, devicetree::smmu(blob));
    let mut report = Report::default();
    tests::run(machine, &devicetree::arguments(blob), &mut report);
    report.summarize();
    power::system_off()
}

/// RAM behind the image, up to the devicetree if that lies there.
fn free_memory(around: &Surroundings, devicetree: usize) -> Range<usize> {
    let start = memory::image().end;
    let end = if devicetree > start { devicetree } else { around.memory.end };
    start..end
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if !PANICKED.swap(true, Ordering::Relaxed) {
        console::break_lock();
        println!("not ok - the image: {info}");
        power::system_off()
    }
    loop {
        cpu::wait_for_interrupt();
    }
}
