//! Allocates a vector for a device on a kernel with one CPU. The device signals once.

use msi_types::{BlockRequest, Cpu, Fit, MsiParent, RequesterId, Rewrite};
use std::error::Error;
use std::num::NonZeroU16;
use std::sync::Arc;
use x86_irq::message::{ApicMessage, DeliveryMode, DestinationFormat};
use x86_irq::{Apic, ApicId, ApicVector, Arrival, IrqState, LocalCpu};
use x86_irq::{VectorDomain, VectorDomainConfig};

/// A kernel with a single thread. No interrupt handler preempts it.
struct Kernel;

impl LocalCpu for Kernel {
    fn irq_save(&self) -> IrqState {
        IrqState::new(0)
    }
    fn irq_restore(&self, _: IrqState) {}
    fn yield_now(&self) {
        self.relax(); // A kernel with a scheduler yields.
    }
}

impl Apic for Kernel {
    /// Writes the interrupt command register.
    fn send(&self, _: ApicId, _: ApicVector) {}
    /// Reads the interrupt request register.
    fn is_requested(&self, _: Cpu, _: ApicVector) -> Option<bool> {
        Some(false)
    }
    /// Sets a flag for the CPU's next tick.
    fn request_cleanup(&self, _: Cpu) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let cpu = Cpu::new(0);
    let domain = VectorDomain::new(VectorDomainConfig::new(NonZeroU16::MIN, Arc::new(Kernel)))?;
    domain.online(cpu, ApicId::new(5))?;

    let nic = domain.attach(RequesterId::pci(1, 0, 0), 1)?;
    let request = BlockRequest::new(NonZeroU16::MIN, Fit::new(Rewrite::Masked), cpu);
    let block = domain.allocate(&nic, &request)?;
    let message = domain.compose(&block, 0)?;
    println!("the device stores {:#x} at {:#x}", message.data, message.address);

    // The device sends the message, the local APIC accepts it, and the trap entry looks up its
    // hwirq.
    let sent = ApicMessage::decode(message, DestinationFormat::Xapic)?;
    let DeliveryMode::Fixed(vector) = sent.delivery else { return Err("not a vector".into()) };
    assert_eq!(domain.arrive(cpu, vector), Arrival::Deliver(block.first()));

    domain.free(&nic, block);
    domain.detach(nic);
    Ok(())
}
