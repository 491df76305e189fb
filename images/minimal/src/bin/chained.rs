//! A kernel for the i.MX 8M Plus's evaluation kit, whose host bridge has an MSI controller of its
//! own. It takes 100,000 messages of three functions behind the bridge, and masks vectors at the
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

use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_facts::{Fact, MinimalFact, WatchedFact};
use edu::{ACKNOWLEDGE, EDU, RAISE};
use gic_bringup::Irqchip;
use gic_firmware::PciHost;
use image_rt::nvme::{self, Nvme};
use image_rt::pci::{self, Function, MappedRegion};
use image_rt::platform::Kernel;
use image_rt::virtio::{QUEUE_SLOT, Rng};
use image_rt::{Boot, console, cpu, power, println};
use irq_domain::IrqHandle;
use irq_domain::pci::TableMemory;
use pci_kernel::{bring_up, kernel};
use spin::Once;

image_rt::image!(main);

/// Number of messages of each function.
const MESSAGES: u32 = 33_334;
/// One in this number of messages is sent while its vector is masked.
const MASKED: u32 = 100;

/// Number of messages whose instructions are logged, and time limit in milliseconds for the runner
/// to start the log.
const WATCHED: u32 = 16;
const PATIENCE: u64 = 60_000;

/// Vendor and device ID of a virtio entropy source.
const RNG: (u16, u16) = (0x1af4, 0x1044);

static DISK: Once<Nvme<MappedRegion>> = Once::new();
/// Messages that the handler of each function has taken.
static TAKEN: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

fn taken(function: usize) -> u32 {
    TAKEN[function].load(Ordering::Acquire)
}

fn main(boot: Boot) -> ! {
    let irqchip = bring_up(boot);
    let description = irqchip.description();
    let host = description.hosts.iter().find(|host| host.status.value.is_enabled());
    let host = host.expect("the devicetree must enable a host bridge");
    let functions = pci::enumerate(description, host);
    let find = |is: fn(&Function) -> bool| functions.iter().find(|function| is(function));
    let edu = find(|one| pci::ids(one) == EDU).map(|edu| take_edu(irqchip, host, edu));
    let rng = find(|one| pci::ids(one) == RNG).map(|rng| take_rng(irqchip, host, rng));
    let disk = find(|one| one.class() == nvme::CLASS).expect("QEMU needs an NVMe disk");
    // The disk gets all vectors that are left.
    let disk = take_disk(irqchip, host, disk);
    let nvme = DISK.get().expect("the disk's driver");
    nvme.start().expect("the disk does not start");
    let Some(((edu, raise), (rng, fetch))) = edu.zip(rng) else { watch(nvme) };
    let before = taken(2);
    for sent in 1..=MESSAGES {
        let is_masked = sent % MASKED == 0;
        send(&edu.handle, is_masked, 0, sent, &raise);
        send(&rng.handle, is_masked, 1, sent, &fetch);
        send(&disk.handle, is_masked, 2, before + sent, || nvme.submit_identify());
        nvme.finish(0).expect("the disk completes its command");
    }
    let counts = [taken(0), taken(1), taken(2) - before];
    for pci in [edu, rng, disk] {
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
    let store = pci::store(function).unwrap_or_else(|error| panic!("{error}"));
    kernel::probe(irqchip, host, function.requester(), store, move |_| handler())
        .unwrap_or_else(|error| panic!("{error}"))
}

fn take_edu(
    irqchip: &Irqchip<Kernel>,
    host: &PciHost,
    function: &Function,
) -> (kernel::Pci, impl Fn() + use<>) {
    let registers = pci::bar(function, 0);
    let pci = request(irqchip, host, function, move || {
        registers.write32(ACKNOWLEDGE, 1);
        TAKEN[0].fetch_add(1, Ordering::Release);
    });
    (pci, move || registers.write32(RAISE, 1))
}

/// Takes the entropy source, whose driver polls for the data. So the message may arrive later.
fn take_rng(
    irqchip: &Irqchip<Kernel>,
    host: &PciHost,
    function: &Function,
) -> (kernel::Pci, impl Fn() + use<>) {
    let rng = Rng::new(function);
    let kernel::Pci { handle, device } = request(irqchip, host, function, || {
        panic!("the configuration changed");
    });
    drop(handle);
    let handle = device.request(QUEUE_SLOT, "queue", |_| {
        TAKEN[1].fetch_add(1, Ordering::Release);
    });
    let handle = handle.expect("the queue has a vector");
    rng.assign();
    (kernel::Pci { handle, device }, move || {
        rng.fetch().expect("the device has entropy");
    })
}

fn take_disk(irqchip: &Irqchip<Kernel>, host: &PciHost, function: &Function) -> kernel::Pci {
    DISK.call_once(|| Nvme::new(pci::bar(function, 0), 0));
    request(irqchip, host, function, || {
        complete();
        TAKEN[2].fetch_add(1, Ordering::Release);
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
