//! The physical bus, which forwards each access to the device that claims its address, and counts
//! messages.

mod address_map;
mod doorbells;

pub use address_map::{AddressMap, Overlap};
pub use doorbells::{DeviceWrites, Doorbells, Written};
pub use vgic::AccessWidth;

use gic_firmware::Region;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

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
    strays: AtomicU64,
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
        if let Some((device, offset)) = self.find(address) {
            device.read(offset, width)
        } else {
            self.strays.fetch_add(1, Ordering::Relaxed);
            width.mask()
        }
    }

    /// Performs a CPU write. Writes to unclaimed addresses are ignored.
    pub fn write(&self, address: u64, width: AccessWidth, value: u64) {
        if let Some((device, offset)) = self.find(address) {
            device.write(offset, width, value & width.mask());
        } else {
            self.strays.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Returns `true` if one device claims the entire region.
    pub fn covers(&self, region: Region) -> bool {
        let holder = |address| self.map.find(address).map(|(index, _)| index);
        region
            .last()
            .is_some_and(|last| holder(region.base()).is_some_and(|at| holder(last) == Some(at)))
    }

    /// Returns the number of CPU accesses to addresses that no device claims.
    pub fn strays(&self) -> u64 {
        self.strays.load(Ordering::Relaxed)
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

#[cfg(test)]
mod tests {
    use super::*;

    struct EchoDevice;
    impl MmioDevice for EchoDevice {
        fn read(&self, offset: u64, _width: AccessWidth) -> u64 {
            offset
        }
        fn write(&self, _offset: u64, _width: AccessWidth, _value: u64) {}
    }

    fn region(base: u64, size: u64) -> Region {
        Region::new(base, size).unwrap()
    }

    #[test]
    fn an_overlap_error_names_both_devices() {
        let mut bus = Bus::default();
        bus.attach("uart", region(0x1000, 0x1000), Arc::new(EchoDevice)).unwrap();
        let overlap = bus.attach("timer", region(0x1fff, 1), Arc::new(EchoDevice)).unwrap_err();
        assert_eq!(overlap.to_string(), "timer at 0x1fff-0x1fff overlaps uart at 0x1000-0x1fff");
    }

    #[test]
    fn an_unclaimed_read_returns_ones_and_is_counted() {
        let bus = Bus::default();
        assert_eq!(bus.read(0, AccessWidth::Half), 0xffff);
        assert_eq!(bus.strays(), 1);
    }
}
