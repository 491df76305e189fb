extern crate alloc;
use alloc::{boxed::Box, sync::Arc};
use core::error::Error;
use gic_bringup::Irqchip;
use gic_driver::{GicPlatform, SystemRegisters};
use gic_firmware::devicetree;
use irq_domain::{Host, IrqContext, IrqHandle, MsiDevice, MsiDeviceConfig};
use msi_types::{Cpu, MessageStore, RequesterId, Shape};

/// On the boot CPU, which unmasks interrupts afterwards. The kernel keeps the `Irqchip` as long as
/// it takes interrupts.
pub fn boot<K: GicPlatform + Host + 'static>(
    kernel: Arc<K>,
    blob: &[u8],
    registers: &impl SystemRegisters,
) -> Result<Irqchip<K>, Box<dyn Error>> {
    let irqchip = Irqchip::new(kernel.clone(), kernel, devicetree::parse(blob)?)?;
    irqchip.cpu_on(Cpu::new(0), registers, |_| ())?; // every other CPU does the same, once it runs
    Ok(irqchip)
}

/// The IRQ exception of a CPU: runs the handlers of everything that is pending.
pub fn take_interrupts<K: GicPlatform>(
    irqchip: &Irqchip<K>,
    cpu: Cpu,
    registers: &impl SystemRegisters,
) {
    irqchip.handle_irq(cpu, registers, |vector, why| panic!("interrupt {vector}: {why:?}"));
}

/// A device driver's parts: without the handle no handler runs, without the device there is no
/// vector.
pub struct Pci {
    pub handle: IrqHandle,
    pub device: MsiDevice,
}

/// A driver takes its PCI function into use, with up to 32 vectors.
pub fn probe<K: GicPlatform + 'static>(
    irqchip: &Irqchip<K>,
    requester: RequesterId,
    (store, shape): (Arc<dyn MessageStore>, Shape),
    handler: impl Fn(&IrqContext<'_>) + Send + Sync + 'static,
) -> Result<Pci, Box<dyn Error>> {
    let host = irqchip.description().hosts.first().ok_or("firmware describes no PCI")?;
    let parent = irqchip.pci_parent(host, requester)?;
    let config = MsiDeviceConfig::new("device", requester, parent, store);
    let device = MsiDevice::attach(irqchip.interrupts(), config)?;
    let vectors = device.allocate(shape, 1..=32)?;
    let handle = device.request(vectors[0].slot, "first", handler)?;
    Ok(Pci { handle, device })
}
