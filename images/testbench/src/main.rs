//! The drivers on QEMU's `virt` machine: an image that discovers the machine from its devicetree, brings up its GIC and
//! ITS by `gic-driver`, serves its PCI devices by `irq-domain`, and says how each test went, a line each, on the console.
#![no_std]
#![no_main]

extern crate alloc;

mod devicetree;
mod ledger;
mod machine;
mod pci;
mod platform;
mod report;

use crate::devicetree::Surroundings;
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
    power::set_conduit(boot.conduit.unwrap_or(around.conduit));
    // SAFETY: RAM behind the image and before the devicetree, or all behind the image.
    unsafe { heap::init(free_memory(&around, boot.devicetree)) };
    let description = gic_firmware::devicetree::parse(blob).expect("firmware's description");
    println!("{:?}, {}", cpu::level(), devicetree::arguments(blob));
    let machine = machine::bring_up(description, around);
    for function in &machine.functions {
        println!("{} {:04x}:{:04x} {:?}", function.address, function.vendor, function.device, function.bars);
    }
    if let Some(edu) = machine.functions.iter().find(|function| function.is(0x1234, 0x11e8)) {
        let (store, shape) = edu.store().unwrap();
        let device = irq_domain::MsiDevice::attach(&machine.interrupts, irq_domain::MsiDeviceConfig {
            name: "edu", requester: edu.requester, parent: machine.parent.clone().unwrap(), store,
        }).unwrap();
        let granted = device.allocate(shape, 1..=1).unwrap();
        println!("{granted:?}");
        let handle = device.request(0, "edu", |context| println!("edu! {:?}", context)).unwrap();
        use irq_domain::pci::TableMemory;
        edu.bar(0).write32(0x60, 1);
        cpu::wait_until(100, || handle.count() == 1);
        println!("count {} {}", handle.count(), ledger::Ledger::now());
    }
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
