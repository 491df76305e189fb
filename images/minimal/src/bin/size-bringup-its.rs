//! A kernel that finds its GIC and ITS in the devicetree, for measuring its size.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::error::Error;
use gic_bringup::{Irqchip, Options};
use gic_firmware::devicetree;
use image_rt::platform::{Kernel, registers};
use image_rt::{Boot, exceptions, start};
use minimal::size::{self, REQUESTER, Served, THIS};
use spin::Once;

image_rt::image!(main);

static IRQCHIP: Once<Irqchip<Kernel>> = Once::new();

fn main(boot: Boot) -> ! {
    // SAFETY: `boot` is the value that the entry point received, and nothing uses RAM behind the
    // image yet.
    let started = unsafe { start::start(boot) };
    exceptions::set_irq_handler(|| {
        let irqchip = IRQCHIP.get().expect("stored before unmasking");
        irqchip.handle_irq(THIS, &registers(), |_, _| ());
    });
    size::finish(serve(started.devicetree).expect("the setup failed"))
}

fn serve(blob: &[u8]) -> Result<Served, Box<dyn Error>> {
    let kernel = Arc::new(Kernel);
    let (description, options) = (devicetree::parse(blob)?, Options::bare_metal());
    let irqchip = Irqchip::with(kernel.clone(), kernel, description, &options)?;
    let irqchip = IRQCHIP.call_once(|| irqchip);
    irqchip.cpu_on(THIS, &registers(), |_| ())?;
    let host = irqchip.description().hosts.first().ok_or("firmware describes no PCI")?;
    size::take_vectors(irqchip.interrupts(), irqchip.pci_parent(host, REQUESTER)?)
}
