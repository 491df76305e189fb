//! A kernel for the i.MX 8M Plus's evaluation kit, whose host bridge has an MSI controller of its
//! own. It takes 100,000 messages of two functions behind the bridge, and masks vectors at the
//! function and at the controller. Without an `edu`, it takes a few messages of the disk while QEMU
//! logs the kernel's instructions.
#![no_std]
#![no_main]

#[path = "../edu.rs"]
mod edu;
#[expect(dead_code, reason = "the host bridge has no ECAM")]
#[path = "../pci.rs"]
mod pci_kernel;

extern crate alloc;

use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_facts::{Fact, MinimalFact, WatchedFact};
use edu::{ACKNOWLEDGE, EDU, RAISE};
use gic_bringup::Irqchip;
use gic_firmware::PciHost;
use image_rt::nvme::{self, Nvme};
use image_rt::pci::{DesignWare, mapped};
use image_rt::platform::Kernel;
use image_rt::{Boot, console, cpu, power, println};
use irq_domain::IrqHandle;
use irq_domain::pci::{self, Ecam, Function, MappedRegion, TableMemory};
use pci_kernel::{bring_up, kernel};
use spin::Once;

image_rt::image!(main);

const MESSAGES: u32 = 100_000;
/// One in this number of messages is sent while its vector is masked.
const MASKED: u32 = 100;

/// Number of messages whose instructions are logged, and time limit in milliseconds for the runner
/// to start the log.
const WATCHED: u32 = 16;
const PATIENCE: u64 = 60_000;

static DISK: Once<Nvme<MappedRegion>> = Once::new();
/// Messages that each function's handler has taken.
static TAKEN: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];

fn taken(function: usize) -> u32 {
    TAKEN[function].load(Ordering::Acquire)
}

fn main(boot: Boot) -> ! {
    let irqchip = bring_up(boot);
    let description = irqchip.description();
    let host = description.hosts.iter().find(|host| host.status.value.is_enabled());
    let host = host.expect("the devicetree must enable a host bridge");
    let bridge = description.controllers.iter().find(|controller| controller.id == host.id);
    let registers = bridge.and_then(|bridge| bridge.registers.as_ref()).expect("its registers");
    let bridge = DesignWare::new(host, mapped(registers.value), mapped);
    let ecam = Ecam::new(Arc::new(bridge), host.buses.value);
    let windows = host.windows.iter().map(|window| window.value).collect::<alloc::vec::Vec<_>>();
    let functions = pci::enumerate(ecam.buses(), &windows, |address| ecam.function(address))
        .expect("not enough memory for the functions");
    let find = |is: fn(&Function) -> bool| functions.iter().find(|function| is(function));
    let edu = find(|one| (one.vendor(), one.device()) == EDU);
    let disk = find(|one| one.class() == nvme::CLASS).expect("QEMU needs an NVMe disk");

    let edu = edu.map(|edu| take_edu(irqchip, host, edu));
    let disk = take_disk(irqchip, host, disk);
    let nvme = DISK.get().expect("the disk's driver");
    nvme.start().expect("the disk does not start");
    let Some((edu, raise)) = edu else { watch(nvme) };
    let before = taken(1);
    for sent in 1..=MESSAGES / 2 {
        let is_masked = sent % MASKED == 0;
        send(&edu.handle, is_masked, 0, sent, &raise);
        send(&disk.handle, is_masked, 1, before + sent, || nvme.submit_identify());
        nvme.finish(0).expect("the disk completes its command");
    }
    let counts = [taken(0), taken(1) - before];
    for pci in [edu, disk] {
        drop(pci.handle);
        pci.device.tear_down().expect("the device could not be torn down");
    }
    println!("{}", Fact::from(MinimalFact::Chained { taken: counts }));
    power::system_off()
}

/// Sends a message, and waits until its handler has run. Masks the vector before if required, and
/// unmasks it when the message has been sent.
fn send(handle: &IrqHandle, is_masked: bool, function: usize, expected: u32, sends: impl Fn()) {
    if is_masked {
        handle.disable();
    }
    sends();
    if is_masked {
        let is_early = cpu::wait_until(1, || taken(function) == expected);
        assert!(!is_early, "the handler of a masked vector ran");
        handle.enable();
    }
    let is_taken = cpu::wait_until(5000, || taken(function) == expected);
    assert!(is_taken, "function {function}: {} messages of {expected}", taken(function));
}

fn request(
    irqchip: &Irqchip<Kernel>,
    host: &PciHost,
    function: &Function,
    handler: impl Fn() + Send + Sync + 'static,
) -> kernel::Pci {
    let store = function.store(Arc::new(Kernel), |bar| Some(Arc::new(mapped(bar.cpu))));
    let store = store.unwrap_or_else(|error| panic!("{error}"));
    kernel::probe(irqchip, host, function.requester(), store, move |_| handler())
        .unwrap_or_else(|error| panic!("{error}"))
}

fn registers(function: &Function) -> MappedRegion {
    function.enable().expect("the host bridge has memory for its registers");
    mapped(function.bar(0).expect("the function has BAR 0").cpu)
}

fn take_edu(
    irqchip: &Irqchip<Kernel>,
    host: &PciHost,
    function: &Function,
) -> (kernel::Pci, impl Fn() + use<>) {
    let registers = registers(function);
    let pci = request(irqchip, host, function, move || {
        TableMemory::write32(&registers, ACKNOWLEDGE, 1);
        TAKEN[0].fetch_add(1, Ordering::Release);
    });
    (pci, move || TableMemory::write32(&registers, RAISE, 1))
}

fn take_disk(irqchip: &Irqchip<Kernel>, host: &PciHost, function: &Function) -> kernel::Pci {
    let registers = registers(function);
    DISK.call_once(|| Nvme::new(registers, 0));
    request(irqchip, host, function, || {
        complete();
        TAKEN[1].fetch_add(1, Ordering::Release);
    })
}

/// Runs the part of the disk's handler that is not counted.
#[inline(never)]
fn complete() {
    if let Some(disk) = DISK.get() {
        disk.complete(0);
    }
}

/// Takes a few messages of the disk while QEMU logs the kernel's instructions.
fn watch(nvme: &Nvme<MappedRegion>) -> ! {
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
