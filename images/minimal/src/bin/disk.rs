//! A kernel with two CPUs that takes several hundred messages from an NVMe disk while it moves both
//! vectors. The guide in `docs/guides/kernel.md` walks through it.
#![no_std]
#![no_main]

#[path = "../pci.rs"]
mod pci_kernel;

extern crate alloc;

use alloc::{boxed::Box, string::String, sync::Arc};
use core::error::Error;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_facts::{Fact, MinimalFact};
use gic_bringup::Irqchip;
use gic_driver::GicPlatform;
use gic_firmware::PciHost;
use image_rt::nvme::{self, Nvme};
use image_rt::platform::{Kernel, registers};
use image_rt::power::CpuStack;
use image_rt::{Boot, cpu, pci, power, println};
use irq_domain::pci::{Function, MappedRegion};
use irq_domain::{IrqContext, IrqHandle, MsiDevice};
use msi_types::Cpu;
use pci_kernel::{bring_up, irqchip, kernel};

image_rt::image!(main);

/// Number of interrupts of each vector on each CPU.
static TAKEN: [[AtomicU32; 2]; 2] = [const { [const { AtomicU32::new(0) }; 2] }; 2];

fn main(boot: Boot) -> ! {
    let irqchip = bring_up(boot);
    start_second_cpu(irqchip);
    let host = irqchip.description().hosts.first().expect("QEMU describes a PCI host bridge");
    let functions =
        kernel::functions(host, pci::mapped).expect("not enough memory for the functions");
    let disk = functions.iter().find(|function| function.class() == nvme::CLASS);
    let disk = disk.expect("QEMU must be started with an NVMe disk");
    let driver = request_vectors(irqchip, host, disk).unwrap_or_else(|error| panic!("{error}"));
    print_all(irqchip, &functions, &driver);
    driver.nvme.start().expect("the disk does not start");
    take_on_both_cpus(&driver).unwrap_or_else(|error| panic!("{error}"));
    let taken = TAKEN.each_ref().map(|cpus| cpus.each_ref().map(|n| n.load(Ordering::Relaxed)));
    println!("{}", Fact::from(MinimalFact::Moved { taken }));
    drop((driver.admin, driver.io));
    driver.device.tear_down().expect("the device could not be torn down");
    power::system_off()
}

/// Starts CPU 1 by PSCI, and waits until it takes interrupts.
fn start_second_cpu(irqchip: &Irqchip<Kernel>) {
    let second = Cpu::new(1);
    let affinity = irqchip.affinity(second).expect("QEMU must be started with two CPUs");
    power::cpu_on(1, affinity.mpidr(), CpuStack::new(), second_main).expect("CPU_ON failed");
    let is_online = || irqchip.interrupts().is_online(second);
    assert!(cpu::wait_until(5000, is_online), "CPU 1 does not start");
}

/// Runs on CPU 1 with interrupts masked.
fn second_main() {
    irqchip().cpu_on(Kernel.cpu(), &registers(), |_| ()).expect("this CPU's GIC");
    cpu::irq_enable();
    loop {
        cpu::wait_for_interrupt();
    }
}

/// A disk in use, with a vector for each queue.
struct Driver {
    nvme: Arc<Nvme<MappedRegion>>,
    admin: IrqHandle,
    io: IrqHandle,
    device: MsiDevice,
}

/// Requests both vectors, which turns MSI-X on.
fn request_vectors(
    irqchip: &Irqchip<Kernel>,
    host: &PciHost,
    disk: &Function,
) -> Result<Driver, Box<dyn Error>> {
    disk.enable()?;
    let registers = pci::mapped(disk.bar(0).ok_or("no BAR 0")?.cpu);
    let nvme = Arc::new(Nvme::new(registers, 1));
    let handler = |queue: u16, nvme: Arc<Nvme<MappedRegion>>| {
        move |context: &IrqContext<'_>| {
            TAKEN[usize::from(queue)][context.cpu().index()].fetch_add(1, Ordering::Relaxed);
            nvme.complete(queue);
        }
    };
    let store = disk.store(Arc::new(Kernel), |bar| Some(Arc::new(pci::mapped(bar.cpu))))?;
    let first = kernel::probe(irqchip, host, disk.requester(), store, handler(0, nvme.clone()))?;
    let kernel::Pci { handle: admin, device } = first;
    let io = device.request(1, "second", handler(1, nvme.clone()))?;
    Ok(Driver { nvme, admin, io, device })
}

/// Prints what the guide shows.
fn print_all(irqchip: &Irqchip<Kernel>, functions: &[Function], driver: &Driver) {
    for (index, _) in irqchip.controllers() {
        let node = irqchip.description().controller(index).expect("firmware describes it");
        println!("in use: {} {}", node.kind, node.id);
    }
    for (_, why) in irqchip.refused() {
        println!("not in use: {why}");
    }
    for one in functions {
        let (requester, class) = (one.requester(), one.class());
        println!("{requester:?} {:04x}:{:04x} class {class:06x}", one.vendor(), one.device());
    }
    let mut path = String::new();
    irqchip.interrupts().describe(driver.admin.irq(), &mut path).expect("a string takes any text");
    println!("{}", path.trim_end());
}

/// Swaps the CPUs of the two vectors three times, and sends 100 commands to each queue after each
/// swap.
fn take_on_both_cpus(driver: &Driver) -> Result<(), Box<dyn Error>> {
    for target in [1, 0, 1] {
        driver.admin.set_affinity(Cpu::new(target))?;
        driver.io.set_affinity(Cpu::new(1 - target))?;
        for _ in 0..100 {
            driver.nvme.identify()?;
            driver.nvme.read(1, 0)?;
        }
    }
    Ok(())
}
