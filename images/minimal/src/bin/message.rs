//! A small kernel with PCI, which receives the first message of QEMU's educational device.
//!
//! Firmware describes the GIC, its ITS or GICv2m frame, and how the PCI host's messages are routed
//! to the ITS or frame. `gic-bringup`'s README shows all code that uses these descriptions.
#![no_std]
#![no_main]

#[path = "../pci.rs"]
mod pci_kernel;

extern crate alloc;

use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_facts::{Fact, MinimalFact};
use image_rt::{Boot, cpu, pci, power, println};
use irq_domain::pci::TableMemory;
use pci_kernel::{bring_up, kernel};

image_rt::image!(main);

/// Vendor and device ID of `edu`, and its registers that raise and acknowledge the interrupt
/// (QEMU, docs/specs/edu.rst).
const EDU: (u16, u16) = (0x1234, 0x11e8);
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;

static MESSAGES: AtomicU32 = AtomicU32::new(0);

fn main(boot: Boot) -> ! {
    let irqchip = bring_up(boot);
    let host = irqchip.description().hosts.first().expect("QEMU describes a PCI host bridge");
    let functions =
        kernel::functions(host, pci::mapped).expect("not enough memory for the functions");
    let edu = functions.iter().find(|one| pci::ids(one) == EDU);
    let edu = edu.expect("QEMU must be started with an edu device");
    edu.enable().expect("the host bridge has memory for its registers");
    let registers = pci::bar(edu, 0);
    let store = pci::store(edu);
    let store = store.expect("edu has MSI");
    let driver = kernel::probe(irqchip, host, edu.requester(), store, move |_| {
        TableMemory::write32(&registers, ACKNOWLEDGE, 1);
        MESSAGES.fetch_add(1, Ordering::Relaxed);
    });
    let driver = driver.expect("a vector could not be requested");
    TableMemory::write32(&registers, RAISE, 1);
    assert!(cpu::wait_until(5000, || MESSAGES.load(Ordering::Relaxed) > 0), "no message");
    let vector = driver.handle.hwirq().get();
    println!("{}", Fact::from(MinimalFact::Received { vector }));
    drop(driver.handle);
    driver.device.tear_down().expect("the device could not be torn down");
    power::system_off()
}
