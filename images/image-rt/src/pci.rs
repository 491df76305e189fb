//! Assigns addresses to PCI functions, and maps their registers.

mod designware;
mod function;

use designware::DesignWare;
pub use function::{Bar, Function};

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use gic_firmware::{ConfigAccess, Description, PciHost, Region};
use irq_domain::pci::{Ecam, EcamWindow, MappedRegion};
use msi_types::pci::{PciSpace, PciWindow};

/// Finds and enables every function behind a host bridge, after assigning bus numbers and
/// addresses. Memory regions are placed in the window for 32-bit addresses.
pub fn enumerate(description: &Description, host: &PciHost) -> Vec<Function> {
    let Some(window) = config_window(description, host) else { return Vec::new() };
    let ecam = Ecam::new(window, host.buses.value);
    let windows: Vec<_> = memory(host).collect();
    let found = irq_domain::pci::enumerate(ecam.buses(), &windows, |at| ecam.function(at));
    let found = found.expect("not enough memory for the functions").into_iter();
    found
        .map(|function| {
            function.enable().expect("the host bridge has memory for every region");
            Function::new(function)
        })
        .collect()
}

fn config_window(description: &Description, host: &PciHost) -> Option<Arc<dyn EcamWindow>> {
    match host.config.as_ref()?.value {
        ConfigAccess::Ecam(region) => Some(Arc::new(mapped(region))),
        ConfigAccess::Registers(region) => {
            let bridge = description.controller(host.own_controller?)?;
            let registers = mapped(bridge.registers.as_ref()?.value);
            let window = mapped(region);
            Some(Arc::new(DesignWare::new(registers, window, region, memory(host))))
        }
    }
}

/// Returns the ECAM window of a host bridge.
pub fn ecam(host: &PciHost) -> Option<Region> {
    match host.config.as_ref()?.value {
        ConfigAccess::Ecam(region) => Some(region),
        ConfigAccess::Registers(_) => None,
    }
}

fn memory(host: &PciHost) -> impl Iterator<Item = PciWindow> + use<'_> {
    let windows = host.windows.iter().map(|window| window.value);
    windows.filter(|window| window.space() == PciSpace::Memory32)
}

/// Returns an accessor for a region that the start code has mapped, such as the configuration space
/// or memory of a host bridge.
pub fn mapped(region: Region) -> MappedRegion {
    let base = NonNull::new(with_exposed_provenance_mut(region.base() as usize));
    // SAFETY: the start code permanently maps the host bridge's windows as device memory,
    // identity-mapped, and no reference points into them.
    unsafe {
        MappedRegion::new(base.expect("no window begins at address 0"), region.size() as usize)
    }
}
