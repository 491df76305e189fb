//! A small kernel with PCI functions behind a bridge to conventional PCI. The functions share a
//! requester ID. Even so, each function is granted all of its vectors, and its messages reach its
//! own handlers.
#![no_std]
#![no_main]

#[path = "../edu.rs"]
mod edu;
#[path = "../pci.rs"]
mod pci_kernel;

extern crate alloc;

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use doorbell_facts::{Fact, MinimalFact};
use edu::{ACKNOWLEDGE, EDU, RAISE};
use gic_bringup::Irqchip;
use image_rt::platform::Kernel;
use image_rt::{Boot, cpu, pci, power, println};
use irq_domain::pci::{Function, TableMemory};
use irq_domain::{IrqContext, IrqHandle, MsiDevice};
use msi_types::Pending;
use pci_kernel::{bring_up, kernel};

image_rt::image!(main);

/// State of a function that this kernel uses.
struct Taken {
    runs: Arc<AtomicU32>,
    handles: Vec<IrqHandle>,
    device: MsiDevice,
}

fn main(boot: Boot) -> ! {
    let irqchip = bring_up(boot);
    let host = irqchip.description().hosts.first().expect("QEMU describes a PCI host bridge");
    let functions =
        kernel::functions(host, pci::mapped).expect("not enough memory for the functions");
    let shared = functions.iter().filter(|function| function.requester().alias.is_some());
    // Use all functions at the same time.
    let taken: Vec<_> = shared.map(|function| (function, take(irqchip, function))).collect();
    let vectors: usize = taken.iter().map(|(_, taken)| taken.handles.len()).sum();
    for (function, taken) in &taken {
        check(function, taken);
    }
    let aliases = taken.iter().filter_map(|(function, _)| function.requester().alias);
    let mut aliases: Vec<_> = aliases.collect();
    aliases.sort_unstable();
    aliases.dedup();
    let (functions, bridges) = (taken.len(), aliases.len());
    println!("{}", Fact::from(MinimalFact::Bridged { functions, bridges, vectors }));
    for (_, taken) in taken {
        drop(taken.handles);
        taken.device.tear_down().expect("the device could not be torn down");
    }
    power::system_off()
}

fn take(irqchip: &Irqchip<Kernel>, function: &Function) -> Taken {
    let name = function.requester().function;
    function.enable().expect("the host bridge has memory for its registers");
    let registers = function.bar(0).map(|bar| pci::mapped(bar.cpu));
    let found = pci::store(function);
    let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
    let slots = found.store.slots();
    let runs = Arc::new(AtomicU32::new(0));
    let registers = registers.filter(|_| pci::ids(function) == EDU);
    let counting = |runs: Arc<AtomicU32>| {
        move |_: &IrqContext<'_>| {
            if let Some(registers) = registers {
                TableMemory::write32(&registers, ACKNOWLEDGE, 1);
            }
            runs.fetch_add(1, Ordering::Relaxed);
        }
    };
    let host = irqchip.description().hosts.first().expect("QEMU describes a PCI host bridge");
    let first = kernel::probe(irqchip, host, function.requester(), found, counting(runs.clone()));
    let kernel::Pci { handle, device } = first.unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut handles = alloc::vec![handle];
    for slot in 1..slots {
        let handle = device.request(slot, "behind", counting(runs.clone()));
        handles.push(handle.unwrap_or_else(|error| panic!("{name}: {error}")));
    }
    Taken { runs, handles, device }
}

/// Checks that a vector's handler runs when software triggers the vector and when an `edu`
/// device sends its message.
fn check(function: &Function, taken: &Taken) {
    let name = function.requester().function;
    let runs = || taken.runs.load(Ordering::Relaxed);
    let mut expected = 0;
    for handle in &taken.handles {
        handle.set_pending(Pending::Set);
        expected += 1;
        assert!(cpu::wait_until(5000, || runs() == expected), "{name}: {} of {expected}", runs());
    }
    if pci::ids(function) == EDU {
        let registers = pci::bar(function, 0);
        TableMemory::write32(&registers, RAISE, 1);
        assert!(cpu::wait_until(5000, || runs() > expected), "{name}: no message");
    }
}
