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
    };
    use crate::platform::MachinePlatform;
    use crate::ram::{Caches, Ram};
    use gic_firmware::BusRange;
    use msi_types::{MsiMessage, RequesterId, SignalMsi};

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

    /// Enumerates one function on the root bus and two behind a bridge. Firmware has set the
    /// bridge's secondary bus number to `secondary`.
    fn found_behind(
        kind: BridgeKind,
        secondary: u8,
    ) -> (Vec<FoundFunction>, Arc<HostBridge>, Arc<SentMessages>, CpuBus) {
        let recorder = Arc::new(SentMessages::default());
        let upstream: Arc<dyn SignalMsi<RequesterId>> = Arc::clone(&recorder) as _;
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
        (enumerate(&bus, windows()).unwrap(), host, recorder, bus)
    }

    fn requesters(found: &[FoundFunction]) -> Vec<(u32, u32)> {
        let both = |found: &FoundFunction| {
            let requester = found.requester();
            (requester.function.get(), requester.at_host().get())
        };
        found.iter().map(both).collect()
    }

    #[test]
    fn bus_numbers_assigned_by_firmware_are_kept() {
        let (found, ..) = found_behind(BridgeKind::RootPort, 0x25);
        assert_eq!(requesters(&found), [(0x2500, 0x2500), (0x2548, 0x2548), (0x2018, 0x2018)]);
    }

    #[test]
    fn a_bridge_without_a_bus_number_gets_the_next_number() {
        let (found, ..) = found_behind(BridgeKind::RootPort, 0);
        assert_eq!(requesters(&found), [(0x2100, 0x2100), (0x2148, 0x2148), (0x2018, 0x2018)]);
    }

    #[test]
    fn a_conventional_bridge_aliases_its_functions_requester_ids() {
        let (found, ..) = found_behind(BridgeKind::ToConventional, 0x22);
        assert_eq!(requesters(&found), [(0x2200, 0x2200), (0x2248, 0x2200), (0x2018, 0x2018)]);
    }

    #[test]
    fn the_enumerated_alias_matches_the_requester_id_of_a_message() {
        let (found, host, recorder, bus) = found_behind(BridgeKind::ToConventional, 0x22);
        let last = &found[1];
        let function =
            host.functions().iter().find(|it| it.requester() == last.requester().function).unwrap();
        let platform = MachinePlatform::new(
            Arc::new(Bus::default()),
            Arc::new(Ram::new(&[], Caches::Snooped)),
        );
        let store = last.store(Arc::new(platform)).unwrap().store;
        let message = MsiMessage { address: 0x1000, data: 5 };
        store
            .update(&mut |slots| {
                slots.write(2, message);
                slots.unmask(2);
            })
            .unwrap();
        store.set_enabled(true).unwrap();
        assert_eq!(store.read_back(2).unwrap().requester, Some(last.requester().at_host()));
        function.signal(2);
        assert_eq!(recorder.all(), [(last.requester().at_host(), message)]);
        drop(bus);
    }

    #[test]
    fn bars_behind_a_bridge_do_not_overlap() {
        let (found, _, _, bus) = found_behind(BridgeKind::RootPort, 0x21);
        let bars = |found: &FoundFunction| -> Vec<_> {
            (0..6).filter_map(|index| found.function.bar(index)).collect()
        };
        let mut all: Vec<_> = found.iter().flat_map(bars).map(|bar| bar.cpu).collect();
        all.sort();
        assert_eq!(all.len(), 6);
        assert!(all.windows(2).all(|pair| pair[0].base() + pair[0].size() <= pair[1].base()));
        for found in &found {
            // Vector Control of the first entry. The entry is masked after reset.
            assert_eq!(bus.read32(found.function.bar(0).unwrap().cpu.base() + 12), 1);
        }
    }
}
