//! A small kernel that owns the SMMU in front of QEMU's educational device. Stage 1 translates the
//! address to which the device sends its message, which is not the address of the doorbell.
#![no_std]
#![no_main]

#[path = "../edu.rs"]
mod edu;
#[path = "../pci.rs"]
mod pci_kernel;

extern crate alloc;

use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_facts::{Fact, MinimalFact};
use edu::{ACKNOWLEDGE, EDU, RAISE};
use gic_driver::PhysicalRegion;
use gic_firmware::{Description, PciHost};
use image_rt::{Boot, cpu, pci, power, println};
use irq_domain::pci::{Function, TableMemory};
use msi_types::MsiMessage;
use pci_kernel::{bring_up, kernel};
use smmu::{Context, Smmu, SpaceId, StreamId, Translation};

image_rt::image!(main);

/// Number of address bits that one entry of the first table translates.
const BLOCK_SHIFT: u32 = 30;
/// Distance from a doorbell to the address that is translated to it, in blocks.
const DISTANCE: u64 = 100;
/// A block (DDI 0487, D8.3): valid, device memory (attribute 1), writable without privilege, and
/// accessed.
const BLOCK: u64 = 1 | 1 << 2 | 1 << 6 | 1 << 10;

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
    let found = pci::store(edu);
    let found = found.expect("edu has MSI");
    let store = found.store.clone();
    let driver = kernel::probe(irqchip, host, edu.requester(), found, move |_| {
        TableMemory::write32(&registers, ACKNOWLEDGE, 1);
        MESSAGES.fetch_add(1, Ordering::Relaxed);
    });
    let kernel::Pci { handle, device } = driver.expect("a vector could not be requested");
    let message = store.read_back(0).and_then(|state| state.message).expect("the MSI is enabled");
    let address = message.address + (DISTANCE << BLOCK_SHIFT);
    translate(irqchip.description(), host, edu, message.address);
    store.set_enabled(false).expect("no message is pending");
    let message = MsiMessage { address, ..message };
    store.update(&mut |update| update.write(0, message)).expect("the MSI is disabled");
    store.set_enabled(true).expect("the MSI has its message");
    TableMemory::write32(&registers, RAISE, 1);
    assert!(cpu::wait_until(5000, || MESSAGES.load(Ordering::Relaxed) > 0), "no message");
    println!("{}", Fact::from(MinimalFact::Received { vector: handle.hwirq().get() }));
    drop(handle);
    device.tear_down().expect("the device could not be torn down");
    power::system_off()
}

/// Enables the SMMU. It translates only the function's accesses near the doorbell.
fn translate(description: &Description, host: &PciHost, edu: &Function, doorbell: u64) {
    let stream = host.iommu.stream(edu.requester().function);
    let (index, stream) = stream.expect("an SMMU is in front of the function");
    let registers = description.iommu(index).and_then(|iommu| iommu.registers.as_ref());
    let region = registers.expect("the SMMU has registers").value;
    let region = PhysicalRegion { base: region.base(), bytes: region.size() };
    let smmu = Smmu::new(region).and_then(Smmu::enable);
    let mut smmu = smmu.expect("the SMMU could not be enabled");
    let root = smmu::memory(0x1000, 0x1000, "tables").expect("not enough memory for a table");
    let block = doorbell >> BLOCK_SHIFT;
    smmu::store(&root, 8 * (block + DISTANCE), &[block << BLOCK_SHIFT | BLOCK]);
    let context = Context::new(SpaceId(1), root.address).expect("not enough memory for a context");
    let translation = smmu.translate(StreamId(stream), &Translation::Stage1(context));
    translation.expect("the SMMU could not translate the stream");
}
