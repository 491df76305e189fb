//! The bus driver: finds functions by their configuration space, gives their regions addresses, and
//! returns what the interrupt core needs. It knows nothing of a host bridge but its windows.

use crate::bus::AccessWidth;
use crate::pci::Windows;
use crate::pci::header;
use crate::platform::CpuBus;
use gic_firmware::BusRange;
use irq_domain::Host;
use irq_domain::pci::{
    AccessContext, ConfigSpace, MsiStore, MsixCapability, MsixParts, MsixStore, PciError,
    TableMemory, capabilities,
};
use msi_types::{MessageStore, RequesterId, Shape};
use std::fmt;
use std::sync::Arc;

/// Granularity of a bridge's window.
const BRIDGE_WINDOW: u64 = 1 << 20;
/// BARs of a type 0 header.
const BARS: usize = 6;

/// A function that was found and configured.
#[derive(Clone, Debug)]
pub struct FoundFunction {
    /// Its place on its bus.
    pub requester: RequesterId,
    /// Its requester ID as the host bridge sees it.
    pub alias: RequesterId,
    config: Arc<FunctionConfigSpace>,
    bars: [Option<Bar>; BARS],
}

/// An address region of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Bar {
    base: u64,
    size: u64,
}

/// A message store that was found, and how its vectors relate.
pub struct FoundStore {
    /// The store.
    pub store: Arc<dyn MessageStore>,
    /// The relation between its vectors.
    pub shape: Shape,
}

impl fmt::Debug for FoundStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FoundStore").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Finds and configures all functions (not bridges) behind a host bridge.
pub fn enumerate(bus: &CpuBus, windows: Windows) -> Vec<FoundFunction> {
    let memory = windows.memory;
    let mut scan = Scan {
        bus,
        ecam: windows.ecam.base(),
        buses: windows.buses,
        next_bus: windows.buses.first,
        cursor: memory.base(),
        end: memory.base() + memory.size(),
        found: Vec::new(),
    };
    scan.bus(windows.buses.first, None);
    scan.found
}

struct Scan<'a> {
    bus: &'a CpuBus,
    ecam: u64,
    buses: BusRange,
    /// The highest bus number seen.
    next_bus: u8,
    /// The part of the memory window that is left.
    cursor: u64,
    end: u64,
    found: Vec<FoundFunction>,
}

impl Scan<'_> {
    /// Everything on a bus; behind a conventional bridge all of it arrives as `alias`.
    fn bus(&mut self, number: u8, alias: Option<RequesterId>) {
        self.next_bus = self.next_bus.max(number);
        for device in 0..32 {
            for function in 0..8 {
                let requester = RequesterId::pci(number, device, function);
                let config = self.config(requester);
                if config.read16(header::VENDOR) == 0xffff {
                    if function == 0 {
                        break;
                    }
                    continue;
                }
                let kind = config.read8(header::HEADER_TYPE);
                match kind & !header::MULTI_FUNCTION {
                    0 => self.function(requester, alias.unwrap_or(requester), config),
                    1 => self.bridge(number, alias, &config),
                    _ => {}
                }
                if function == 0 && kind & header::MULTI_FUNCTION == 0 {
                    break;
                }
            }
        }
    }

    fn function(
        &mut self,
        requester: RequesterId,
        alias: RequesterId,
        config: FunctionConfigSpace,
    ) {
        config.write16(header::COMMAND, 0);
        let mut bars = [None; BARS];
        let mut index = 0;
        while index < BARS {
            let (size, registers) = size_of_bar(&config, index);
            if size != 0
                && let Some(base) = self.take(size)
            {
                bars[index] = Some(Bar { base, size });
            }
            index += registers;
        }
        let found = FoundFunction { requester, alias, config: Arc::new(config), bars };
        found.configure();
        self.found.push(found);
    }

    fn bridge(&mut self, primary: u8, alias: Option<RequesterId>, config: &FunctionConfigSpace) {
        let [_, left, ..] = config.read32(header::BUS_NUMBERS).to_le_bytes();
        // A sensible bus number of firmware's is kept: requester IDs depend on it.
        let secondary = if left > primary { left } else { self.next_bus.saturating_add(1) };
        if !self.buses.contains(secondary) || secondary <= primary {
            return;
        }
        let numbers = |subordinate| u32::from_le_bytes([primary, secondary, subordinate, 0]);
        config.write32(header::BUS_NUMBERS, numbers(self.buses.last));
        self.cursor = self.cursor.next_multiple_of(BRIDGE_WINDOW);
        let base = self.cursor;
        let behind =
            if is_conventional(config) { Some(RequesterId::pci(secondary, 0, 0)) } else { alias };
        self.bus(secondary, behind);
        self.cursor = self.cursor.next_multiple_of(BRIDGE_WINDOW);
        config.write32(header::BUS_NUMBERS, numbers(self.next_bus.max(secondary)));
        if self.cursor > base {
            open_window(config, base, self.cursor - 1);
        }
    }

    /// The next free addresses of the window, aligned to their own size.
    fn take(&mut self, size: u64) -> Option<u64> {
        let base = self.cursor.checked_next_multiple_of(size)?;
        let end = base.checked_add(size).filter(|end| *end <= self.end)?;
        self.cursor = end;
        Some(base)
    }

    fn config(&self, requester: RequesterId) -> FunctionConfigSpace {
        let first = RequesterId::pci(self.buses.first, 0, 0);
        let index = u64::from(requester.get()) - u64::from(first.get());
        FunctionConfigSpace { bus: self.bus.clone(), base: self.ecam + (index << 12) }
    }
}

impl FoundFunction {
    /// Gives the function its addresses and lets it answer and send: at first, and after it was
    /// taken out and put back.
    pub fn configure(&self) {
        for (index, bar) in (0u16..).zip(&self.bars) {
            if let Some(bar) = bar {
                let register = header::BAR0 + index * 4;
                self.config.write32(register, low(bar.base));
                self.config.write32(register + 4, low(bar.base >> 32));
            }
        }
        self.config.write16(header::COMMAND, header::COMMAND_MEMORY | header::COMMAND_MASTER);
    }

    /// The function's message store: MSI-X if it has it, else MSI.
    pub fn store(&self, host: Arc<dyn Host>) -> Result<FoundStore, PciError> {
        let config: Arc<dyn ConfigSpace> = Arc::clone(&self.config) as _;
        if !capabilities(&*config).any(|found| found.id == msi_types::pci::msix::CAPABILITY_ID) {
            let store = Arc::new(MsiStore::new(config, host)?);
            return Ok(FoundStore { store, shape: Shape::AlignedGroup });
        }
        let capability = MsixCapability::find(&*config)?;
        let parts = MsixParts::new(
            capability,
            config,
            self.region(capability.table.bir()),
            self.region(capability.pending.bir()),
            host,
        );
        Ok(FoundStore { store: Arc::new(MsixStore::new(parts)?), shape: Shape::Independent })
    }

    /// A region that has no address has no length.
    fn region(&self, bir: u8) -> Arc<dyn TableMemory> {
        let bar = self.bars.get(usize::from(bir)).copied().flatten();
        let bar = bar.unwrap_or(Bar { base: 0, size: 0 });
        Arc::new(RegionMemory { bus: self.config.bus.clone(), bar })
    }
}

/// Size of the region at a BAR (0 if there is none), and how many registers it takes. Decoding is
/// off.
fn size_of_bar(config: &FunctionConfigSpace, index: usize) -> (u64, usize) {
    let Ok(index) = u16::try_from(index) else { return (0, 1) };
    let register = header::BAR0 + index * 4;
    config.write32(register, u32::MAX);
    let found = config.read32(register);
    config.write32(register, 0);
    const MEMORY_64: u32 = 0x4;
    if found & 0x7 != MEMORY_64 || usize::from(index) + 1 >= BARS {
        // The machine's functions have 64-bit memory regions alone.
        return (0, 1);
    }
    config.write32(register + 4, u32::MAX);
    let mask = u64::from(config.read32(register + 4)) << 32 | u64::from(found & !0xf);
    config.write32(register + 4, 0);
    (mask.wrapping_neg(), 2)
}

fn is_conventional(config: &FunctionConfigSpace) -> bool {
    let express = capabilities(config).find(|found| found.id == header::EXPRESS);
    let port = express.map(|found| config.read16(found.offset + header::EXPRESS_FLAGS) >> 4 & 0xf);
    port == Some(header::PORT_TO_CONVENTIONAL)
}

fn open_window(config: &FunctionConfigSpace, base: u64, last: u64) {
    let field = |address: u64| low(address) >> 16 & 0xfff0;
    config.write32(header::PREFETCHABLE, field(last) << 16 | field(base));
    config.write32(header::PREFETCHABLE_UPPER, low(base >> 32));
    config.write32(header::PREFETCHABLE_UPPER + 4, low(last >> 32));
    config.write16(header::COMMAND, header::COMMAND_MEMORY | header::COMMAND_MASTER);
}

fn low(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap_or(0)
}

/// One function's configuration space, by ECAM.
#[derive(Debug)]
struct FunctionConfigSpace {
    bus: CpuBus,
    base: u64,
}

impl FunctionConfigSpace {
    fn read(&self, offset: u16, width: AccessWidth) -> u32 {
        u32::try_from(self.bus.read(self.base + u64::from(offset), width)).unwrap_or(u32::MAX)
    }

    fn write(&self, offset: u16, width: AccessWidth, value: u32) {
        self.bus.write(self.base + u64::from(offset), width, u64::from(value));
    }
}

impl ConfigSpace for FunctionConfigSpace {
    fn read8(&self, offset: u16) -> u8 {
        u8::try_from(self.read(offset, AccessWidth::Byte)).unwrap_or(u8::MAX)
    }

    fn read16(&self, offset: u16) -> u16 {
        u16::try_from(self.read(offset, AccessWidth::Half)).unwrap_or(u16::MAX)
    }

    fn read32(&self, offset: u16) -> u32 {
        self.read(offset, AccessWidth::Word)
    }

    fn write8(&self, offset: u16, value: u8) {
        self.write(offset, AccessWidth::Byte, u32::from(value));
    }

    fn write16(&self, offset: u16, value: u16) {
        self.write(offset, AccessWidth::Half, u32::from(value));
    }

    fn write32(&self, offset: u16, value: u32) {
        self.write(offset, AccessWidth::Word, value);
    }

    fn context(&self) -> AccessContext {
        AccessContext::Any
    }
}

/// A function's memory region.
struct RegionMemory {
    bus: CpuBus,
    bar: Bar,
}

impl TableMemory for RegionMemory {
    fn length(&self) -> u64 {
        self.bar.size
    }

    fn read32(&self, offset: u64) -> u32 {
        self.bus.read32(self.bar.base + offset)
    }

    fn write32(&self, offset: u64, value: u32) {
        self.bus.write(self.bar.base + offset, AccessWidth::Word, u64::from(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::pci::{
        BridgeKind, DevFn, DeviceFunctions, FunctionConfig, HostBridge, Segment, StoreConfig,
    };
    use crate::platform::MachinePlatform;
    use crate::ram::{Caches, Ram};
    use gic_firmware::Region;
    use msi_types::{Delivery, MsiMessage, SignalMsi};
    use std::sync::Mutex;

    #[derive(Default)]
    struct SentMessages(Mutex<Vec<(RequesterId, MsiMessage)>>);
    impl SignalMsi<RequesterId> for SentMessages {
        fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
            self.0.lock().unwrap().push((from, message));
            Delivery::Pending
        }
    }

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

    /// A function on the root bus, and two behind a bridge whose bus numbers firmware left at
    /// `secondary`.
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
        (enumerate(&bus, windows()), host, recorder, bus)
    }

    fn requesters(found: &[FoundFunction]) -> Vec<(u32, u32)> {
        found.iter().map(|found| (found.requester.get(), found.alias.get())).collect()
    }

    #[test]
    fn bus_numbers_that_firmware_left_are_kept() {
        let (found, ..) = found_behind(BridgeKind::RootPort, 0x25);
        assert_eq!(requesters(&found), [(0x2500, 0x2500), (0x2548, 0x2548), (0x2018, 0x2018)]);
    }

    #[test]
    fn bridge_without_bus_number_gets_next() {
        let (found, ..) = found_behind(BridgeKind::RootPort, 0);
        assert_eq!(requesters(&found), [(0x2100, 0x2100), (0x2148, 0x2148), (0x2018, 0x2018)]);
    }

    #[test]
    fn bridged_functions_use_secondary_bus_requester() {
        let (found, ..) = found_behind(BridgeKind::ToConventional, 0x22);
        assert_eq!(requesters(&found), [(0x2200, 0x2200), (0x2248, 0x2200), (0x2018, 0x2018)]);
    }

    #[test]
    fn alias_matches_requester_at_host_bridge() {
        let (found, host, recorder, bus) = found_behind(BridgeKind::ToConventional, 0x22);
        let last = &found[1];
        let function = host.functions().iter().find(|it| it.requester() == last.requester).unwrap();
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
        function.signal(2);
        assert_eq!(*recorder.0.lock().unwrap(), [(last.alias, message)]);
        drop(bus);
    }

    #[test]
    fn bridged_regions_answer_without_overlap() {
        let (found, _, _, bus) = found_behind(BridgeKind::RootPort, 0x21);
        let mut bars: Vec<_> = found.iter().flat_map(|found| found.bars.iter().flatten()).collect();
        bars.sort_by_key(|bar| bar.base);
        assert_eq!(bars.len(), 6);
        assert!(bars.windows(2).all(|pair| pair[0].base + pair[0].size <= pair[1].base));
        for found in &found {
            // Vector Control of the first entry: masked after reset.
            assert_eq!(bus.read32(found.bars[0].unwrap().base + 12), 1);
        }
    }
}
