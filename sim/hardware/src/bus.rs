//! The physical bus, which forwards each access to the device that claims its address, and counts
//! messages.

mod address_map;
mod doorbells;

pub use address_map::{AddressMap, Overlap};
pub use doorbells::Doorbells;
pub use vgic::AccessWidth;

use gic_firmware::Region;
use std::fmt;
use std::sync::Arc;

/// A device with registers in a region of the bus.
pub trait MmioDevice: Send + Sync {
    /// Reads at byte `offset` in the claimed region.
    fn read(&self, offset: u64, width: AccessWidth) -> u64;
    /// Writes at byte `offset` in the claimed region.
    fn write(&self, offset: u64, width: AccessWidth, value: u64);
}

/// The devices on a bus, by address. The set of devices cannot change once the bus is built.
#[derive(Default)]
pub struct Bus {
    map: AddressMap,
    devices: Vec<Arc<dyn MmioDevice>>,
}

impl Bus {
    /// Attaches `device` at `region`, and calls it `name` in errors.
    ///
    /// # Errors
    /// Fails if the region overlaps that of another device. The [`Overlap`] names both devices.
    pub fn attach(
        &mut self,
        name: &str,
        region: Region,
        device: Arc<dyn MmioDevice>,
    ) -> Result<(), Overlap> {
        self.map.claim(name, region)?;
        self.devices.push(device);
        Ok(())
    }

    /// Performs a CPU read. Returns all ones if no device claims the address.
    pub fn read(&self, address: u64, width: AccessWidth) -> u64 {
        self.find(address).map_or(width.mask(), |(device, offset)| device.read(offset, width))
    }

    /// Performs a CPU write. Writes to unclaimed addresses are ignored.
    pub fn write(&self, address: u64, width: AccessWidth, value: u64) {
        if let Some((device, offset)) = self.find(address) {
            device.write(offset, width, value & width.mask());
        }
    }

    /// Returns `true` if one device claims the entire region.
    pub fn covers(&self, region: Region) -> bool {
        let holder = |address| self.map.find(address).map(|(index, _)| index);
        region
            .last()
            .is_some_and(|last| holder(region.base()).is_some_and(|at| holder(last) == Some(at)))
    }

    fn find(&self, address: u64) -> Option<(&dyn MmioDevice, u64)> {
        let (index, claimed) = self.map.find(address)?;
        Some((&**self.devices.get(index)?, address - claimed.base()))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.map.fmt(f)
    }
}
