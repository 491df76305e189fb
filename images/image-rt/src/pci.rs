//! Assigns addresses to PCI functions, and maps their registers.

mod designware;

use designware::DesignWare;
pub use irq_domain::pci::{Function, MappedRegion};

use crate::platform::Kernel;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ptr::{NonNull, with_exposed_provenance_mut};
use gic_firmware::{ConfigAccess, Description, PciHost, Region};
use irq_domain::pci::{Ecam, EcamWindow, FunctionStore, PciError, capabilities};
use msi_types::pci::{PciSpace, PciWindow};

/// Finds and enables every function behind a host bridge, after assigning bus numbers and
/// addresses. Memory regions are placed in the window for 32-bit addresses.
pub fn enumerate(description: &Description, host: &PciHost) -> Vec<Function> {
    let Some(window) = config_window(description, host) else { return Vec::new() };
    let ecam = Ecam::new(window, host.buses.value);
    let windows: Vec<_> = memory(host).collect();
    let found = irq_domain::pci::enumerate(ecam.buses(), &windows, |at| ecam.function(at));
    let found = found.expect("not enough memory for the functions");
    for function in &found {
        function.enable().expect("the host bridge has memory for every region");
    }
    found
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

/// Returns a function's vendor and device ID.
pub fn ids(function: &Function) -> (u16, u16) {
    (function.vendor(), function.device())
}

/// Maps the memory region of a BAR, which must exist.
pub fn bar(function: &Function, index: u8) -> MappedRegion {
    let bar = function.bar(index);
    mapped(bar.unwrap_or_else(|| panic!("{function:?} has no BAR {index}")).cpu)
}

/// Returns the offset of the first capability with this ID.
pub fn capability(function: &Function, id: u8) -> Option<u16> {
    capabilities(&**function.config()).find(|it| it.id == id).map(|it| it.offset)
}

/// Creates a function's message store: for MSI-X if available, otherwise for MSI.
pub fn store(function: &Function) -> Result<FunctionStore, PciError> {
    function.store(Arc::new(Kernel), |bar| Some(Arc::new(mapped(bar.cpu))))
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
