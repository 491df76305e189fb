extern crate alloc;
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::error::Error;
use gic_bringup::{Irqchip, Options};
use gic_driver::{GicPlatform, SystemRegisters};
use gic_firmware::{ConfigAccess, PciHost, Region, devicetree};
use irq_domain::pci::{self, Ecam, Function, FunctionStore, MappedRegion};
use irq_domain::{Host, IrqContext, IrqHandle, MsiDevice, MsiDeviceConfig, Unhandled};
use msi_types::{Cpu, HwIrq, pci::PciRequester};

/// Sets up the interrupt controllers that the devicetree describes. Runs on the boot CPU, with
/// interrupts masked. The kernel must keep the `Irqchip` for as long as it takes interrupts.
pub fn boot<K: GicPlatform + Host + 'static>(
    kernel: Arc<K>,
    blob: &[u8],
    registers: &impl SystemRegisters,
) -> Result<Irqchip<K>, Box<dyn Error>> {
    // A guest's kernel passes `Options::default()`.
    let (description, options) = (devicetree::parse(blob)?, Options::bare_metal());
    let irqchip = Irqchip::with(kernel.clone(), kernel, description, &options)?;
    irqchip.cpu_on(Cpu::new(0), registers, |_| ())?; // likewise on each CPU that PSCI starts
    Ok(irqchip)
}

/// Handles an IRQ exception: runs the handlers of all pending interrupts.
pub fn take_interrupts<K: GicPlatform>(
    irqchip: &Irqchip<K>,
    cpu: Cpu,
    registers: &impl SystemRegisters,
    unhandled: impl FnMut(HwIrq, Unhandled), // logs the interrupt
) {
    irqchip.handle_irq(cpu, registers, unhandled);
}

/// A PCI function in use. Dropping the handle removes the handler; dropping the device frees its
/// vectors.
pub struct Pci {
    pub handle: IrqHandle,
    pub device: MsiDevice,
}

/// Enumerates the functions behind a host bridge and assigns bus numbers and addresses. `map` maps
/// registers.
pub fn functions(
    host: &PciHost,
    map: impl Fn(Region) -> MappedRegion,
) -> Result<Vec<Function>, Box<dyn Error>> {
    let config = host.config.as_ref().map(|config| config.value);
    let Some(ConfigAccess::Ecam(ecam)) = config else {
        return Err("the bridge has no ECAM".into());
    };
    let ecam = Ecam::new(Arc::new(map(ecam)), host.buses.value);
    let windows: Vec<_> = host.windows.iter().map(|window| window.value).collect();
    Ok(pci::enumerate(ecam.buses(), &windows, |address| ecam.function(address))?)
}

/// Allocates up to 32 vectors for a PCI function and requests the first one. The caller has called
/// `function.enable()`; `found` is the result of
/// `function.store(kernel, |bar| Some(Arc::new(map(bar.cpu))))`, which prefers MSI-X over MSI.
pub fn probe<K: GicPlatform + 'static>(
    irqchip: &Irqchip<K>,
    host: &PciHost,
    requester: PciRequester, // function.requester()
    found: FunctionStore,
    handler: impl Fn(&IrqContext<'_>) + Send + Sync + 'static,
) -> Result<Pci, Box<dyn Error>> {
    let parent = irqchip.pci_parent(host, requester)?;
    let config = MsiDeviceConfig::new("device", requester.function, parent, found.store);
    let device = MsiDevice::attach(irqchip.interrupts(), config)?;
    let vectors = device.allocate(found.shape, 1..=32)?;
    let handle = device.request(vectors[0].slot, "first", handler)?;
    Ok(Pci { handle, device })
}
