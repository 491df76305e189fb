//! A kernel for the i.MX 8M Plus's evaluation kit, whose host bridge has an MSI controller of its
//! own. It takes a few messages of an NVMe disk while QEMU logs the kernel's instructions.
#![no_std]
#![no_main]

#[expect(dead_code, reason = "the host bridge has no ECAM")]
#[path = "../pci.rs"]
mod pci_kernel;

extern crate alloc;

use doorbell_facts::{Fact, WatchedFact};
use image_rt::nvme::{self, Nvme};
use image_rt::pci::{self, MappedRegion};
use image_rt::{Boot, console, cpu, println};
use pci_kernel::{bring_up, kernel};
use spin::Once;

image_rt::image!(main);

/// Number of messages whose instructions are logged, and time limit in milliseconds for the runner
/// to start the log.
const WATCHED: u32 = 16;
const PATIENCE: u64 = 60_000;

static DISK: Once<Nvme<MappedRegion>> = Once::new();

fn main(boot: Boot) -> ! {
    let irqchip = bring_up(boot);
    let description = irqchip.description();
    let host = description.hosts.iter().find(|host| host.status.value.is_enabled());
    let host = host.expect("the devicetree must enable a host bridge");
    let functions = pci::enumerate(description, host);
    let disk = functions.iter().find(|function| function.class() == nvme::CLASS);
    let disk = disk.expect("QEMU needs an NVMe disk");
    let nvme = DISK.call_once(|| Nvme::new(pci::bar(disk, 0), 0));
    let store = pci::store(disk).expect("the disk has MSI-X");
    let driver = kernel::probe(irqchip, host, disk.requester(), store, |_| complete());
    let _driver = driver.expect("a vector could not be requested");
    nvme.start().expect("the disk does not start");
    let handler = alloc::format!("{:x}", complete as fn() as usize).into();
    println!("{}", Fact::from(WatchedFact::Ready { handler }));
    let is_watching = cpu::wait_until(PATIENCE, || console::read().is_some());
    assert!(is_watching, "the runner did not start the log");
    for _ in 0..WATCHED {
        nvme.identify().expect("the disk completes its command");
    }
    println!("{}", Fact::from(WatchedFact::Done));
    // The runner ends the machine.
    loop {
        cpu::wait_for_interrupt();
    }
}

/// Runs the part of the disk's handler that is not counted.
#[inline(never)]
fn complete() {
    if let Some(disk) = DISK.get() {
        disk.complete(0);
    }
}
