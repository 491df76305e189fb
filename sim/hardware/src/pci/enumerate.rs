//! A bus driver, which runs the interrupt core's enumeration on the simulated bus. The bus driver
//! needs only the windows of a host bridge.

use crate::bus::AccessWidth;
use crate::pci::Windows;
use crate::platform::CpuBus;
use gic_firmware::Region;
use irq_domain::Host;
use irq_domain::pci::{Ecam, EcamWindow, Function, FunctionStore, PciError, TableMemory};
use msi_types::pci::{PciRequester, PciSpace, PciWindow};
use std::sync::Arc;

/// A function that has been found and configured.
#[derive(Clone, Debug)]
pub struct FoundFunction {
    bus: CpuBus,
    function: Function,
}

/// Finds and configures all functions (but not bridges) behind a host bridge.
///
/// # Errors
/// Returns the errors of [`irq_domain::pci::enumerate`], for example because a window is too small.
pub fn enumerate(bus: &CpuBus, windows: Windows) -> Result<Vec<FoundFunction>, PciError> {
    let ecam = Arc::new(BusRegion::new(bus, windows.ecam));
    let ecam = Ecam::new(ecam, windows.buses);
    let memory = PciWindow::identity(PciSpace::Memory64, windows.memory);
    let found = irq_domain::pci::enumerate(windows.buses, &[memory], |at| ecam.function(at))?;
    let functions = found.into_iter().filter(|function| function.secondary_bus().is_none());
    functions
        .map(|function| {
            function.enable()?;
            Ok(FoundFunction { bus: bus.clone(), function })
        })
        .collect()
}

impl FoundFunction {
    /// Restores the function's addresses and enables it again after it was removed and reinserted.
    ///
    /// # Errors
    /// [`PciError::Unplaced`].
    pub fn configure(&self) -> Result<(), PciError> {
        self.function.enable()
    }

    /// Returns the function's location on its bus, and the requester ID that the host bridge sees.
    pub fn requester(&self) -> PciRequester {
        self.function.requester()
    }

    /// Returns the function's message store. MSI-X is preferred over MSI.
    ///
    /// # Errors
    /// Returns the errors of [`irq_domain::pci::find_store`].
    pub fn store(&self, host: Arc<dyn Host>) -> Result<FunctionStore, PciError> {
        self.function.store(host, |bar| Some(Arc::new(BusRegion::new(&self.bus, bar.cpu)) as _))
    }
}

/// A region of registers on the simulated bus, as a driver maps it.
#[derive(Debug)]
pub struct BusRegion {
    bus: CpuBus,
    region: Region,
}

impl BusRegion {
    /// Maps the region.
    pub fn new(bus: &CpuBus, region: Region) -> Self {
        Self { bus: bus.clone(), region }
    }

    fn read(&self, offset: u64, width: AccessWidth) -> u32 {
        u32::try_from(self.bus.read(self.region.base() + offset, width)).unwrap_or(u32::MAX)
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u32) {
        self.bus.write(self.region.base() + offset, width, u64::from(value));
    }
}

impl EcamWindow for BusRegion {
    fn length(&self) -> u64 {
        self.region.size()
    }

    fn read8(&self, offset: u64) -> u8 {
        u8::try_from(self.read(offset, AccessWidth::Byte)).unwrap_or(u8::MAX)
    }

    fn read16(&self, offset: u64) -> u16 {
        u16::try_from(self.read(offset, AccessWidth::Half)).unwrap_or(u16::MAX)
    }

    fn read32(&self, offset: u64) -> u32 {
        self.read(offset, AccessWidth::Word)
    }

    fn write8(&self, offset: u64, value: u8) {
        self.write(offset, AccessWidth::Byte, u32::from(value));
    }

    fn write16(&self, offset: u64, value: u16) {
        self.write(offset, AccessWidth::Half, u32::from(value));
    }

    fn write32(&self, offset: u64, value: u32) {
        self.write(offset, AccessWidth::Word, value);
    }
}

impl TableMemory for BusRegion {
    fn length(&self) -> u64 {
        self.region.size()
    }

    fn read32(&self, offset: u64) -> u32 {
        self.read(offset, AccessWidth::Word)
    }

    fn write32(&self, offset: u64, value: u32) {
        self.write(offset, AccessWidth::Word, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::pci::sent::SentMessages;
    use crate::pci::{
        BridgeKind, DevFn, DeviceFunctions, FunctionConfig, HostBridge, Segment, StoreConfig,
        header,
    };
    use crate::platform::MachinePlatform;
    use crate::ram::{Caches, Ram};
    use gic_firmware::BusRange;
    use msi_types::{RequesterId, SignalMsi};

    const BUSES: BusRange = BusRange { first: 0x20, last: 0x2f };

    fn windows() -> Windows {
        Windows {
            ecam: Region::new(0x4000_0000, 16 << 20).unwrap(),
            memory: Region::new(0x10_0000_0000, 64 << 20).unwrap(),
            buses: BUSES,
        }
    }

    fn plug(segment: &mut Segment, at: DevFn, upstream: &Arc<dyn SignalMsi<RequesterId>>) {
        let store = StoreConfig::Msix { vectors: 4, table_bar: 0, pba_bar: 2 };
        let config = FunctionConfig { store, at, functions_in_device: DeviceFunctions::One };
        segment.plug(config, Arc::clone(upstream));
    }

    /// Enumerates one function on the root bus and two behind a bridge, and returns each one's
    /// requester IDs: its own, and the one that the host bridge sees. Firmware has set the bridge's
    /// secondary bus number to `secondary`.
    fn requesters_behind(kind: BridgeKind, secondary: u8) -> [(u32, u32); 3] {
        let upstream: Arc<dyn SignalMsi<RequesterId>> = Arc::new(SentMessages::default());
        let mut root = Segment::new(BUSES.first);
        plug(&mut root, DevFn::new(3, 0), &upstream);
        let mut segment = Segment::new(secondary);
        let behind = segment.upstream(kind, Arc::clone(&upstream));
        plug(&mut segment, DevFn::new(0, 0), &behind);
        plug(&mut segment, DevFn::new(9, 0), &behind);
        root.plug_bridge(DevFn::new(0, 0), kind, segment);
        let host = Arc::new(HostBridge::new(windows(), root));
        let mut bus = Bus::default();
        bus.attach("ecam", windows().ecam, host.ecam()).unwrap();
        bus.attach("memory", windows().memory, host.memory()).unwrap();
        let ram = Arc::new(Ram::new(&[], Caches::Snooped));
        let bus = MachinePlatform::new(Arc::new(bus), ram).cpu_bus();
        let found: [_; 3] = enumerate(&bus, windows()).unwrap().try_into().unwrap();
        // Vector Control of the first entry. The entry is masked after reset.
        let control = found[0].function.bar(0).unwrap().cpu.base() + 12;
        assert_eq!(bus.read32(control), 1);
        bus.write(windows().ecam.base() + u64::from(header::COMMAND), AccessWidth::Half, 0);
        assert_eq!(bus.read32(control), u32::MAX, "the bridge does not forward memory accesses");
        found.map(|it| (it.requester().function.get(), it.requester().at_host().get()))
    }

    #[test]
    fn each_bridge_determines_the_requester_ids_below() {
        for (kind, secondary, expected) in [
            (BridgeKind::RootPort, 0x25, [(0x2500, 0x2500), (0x2548, 0x2548)]),
            // Without a number of firmware's, the bridge gets the next one.
            (BridgeKind::RootPort, 0, [(0x2100, 0x2100), (0x2148, 0x2148)]),
            (BridgeKind::ToConventional, 0x22, [(0x2200, 0x2200), (0x2248, 0x2200)]),
        ] {
            let [first, second, on_root] = requesters_behind(kind, secondary);
            assert_eq!(([first, second], on_root), (expected, (0x2018, 0x2018)));
        }
    }
}
