//! A small kernel with PCI: an educational device of QEMU sends its first message.
//!
//! Firmware states the GIC, its ITS or GICv2m frame, and the way from one to the other. The lines
//! that the project's README shows are all that is done with them.
#![no_std]
#![no_main]

#[expect(unreachable_pub, reason = "a reader makes a module of it where it is reachable")]
#[path = "../../../../sim/machine/src/readme/kernel.rs"]
mod kernel;

extern crate alloc;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use gic_bringup::Irqchip;
use image_rt::pci;
use image_rt::platform::{Kernel, registers};
use image_rt::start;
use image_rt::{Boot, cpu, exceptions, power, println};
use irq_domain::Unhandled;
use irq_domain::pci::TableMemory;
use msi_types::{Cpu, HwIrq};
use spin::Once;

image_rt::image!(main);

/// QEMU's `edu`, and its registers that raise and acknowledge an interrupt.
const EDU: (u16, u16) = (0x1234, 0x11e8);
const RAISE: u64 = 0x60;
const ACKNOWLEDGE: u64 = 0x64;

static IRQCHIP: Once<Irqchip<Kernel>> = Once::new();
static MESSAGES: AtomicU32 = AtomicU32::new(0);

fn stray(vector: HwIrq, why: Unhandled) {
    panic!("interrupt {vector}: {why:?}");
}

fn main(boot: Boot) -> ! {
    // SAFETY: what the loader handed over, before anything else.
    let around = unsafe { start::start(boot) };
    let new = || kernel::boot(Arc::new(Kernel), around.devicetree, &registers());
    let irqchip = IRQCHIP.call_once(|| new().expect("the interrupt controllers"));
    exceptions::set_irq_handler(|| {
        let irqchip = IRQCHIP.get().expect("interrupts come after it");
        kernel::take_interrupts(irqchip, Cpu::new(0), &registers(), stray);
    });
    cpu::irq_enable();

    let host = irqchip.description().hosts.first().expect("QEMU has PCI");
    let functions = kernel::functions(host, pci::mapped).expect("memory for the functions");
    let edu = functions.iter().find(|one| (one.vendor(), one.device()) == EDU);
    let edu = edu.expect("QEMU has an edu");
    edu.enable().expect("room for its registers");
    let registers = pci::mapped(edu.bar(0).expect("its registers").cpu);
    let store = edu.store(Arc::new(Kernel), |bar| Some(Arc::new(pci::mapped(bar.cpu))));
    let store = store.expect("edu has MSI");
    let driver = kernel::probe(irqchip, host, edu.requester(), store, move |_| {
        TableMemory::write32(&registers, ACKNOWLEDGE, 1);
        MESSAGES.fetch_add(1, Ordering::Relaxed);
    });
    let driver = driver.expect("a vector");
    TableMemory::write32(&registers, RAISE, 1);
    assert!(cpu::wait_until(5000, || MESSAGES.load(Ordering::Relaxed) > 0), "no message");
    println!("ok - the first message, vector {}", driver.handle.hwirq());
    drop(driver.handle);
    driver.device.tear_down().expect("the device stops");
    power::system_off()
}
