//! A host bridge, which decodes an ECAM window and a memory window, and translates the requester ID
//! of each message from its functions to a DeviceID.

use crate::bus::{AccessWidth, Doorbells, MmioDevice};
use crate::pci::bus_number::DevFn;
use crate::pci::function::Function;
use crate::pci::segment::{Node, Segment};
use gic_firmware::{BusRange, Region};
use msi_types::{Delivery, DeviceId, MsiMessage, RequesterId, SignalMsi};
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Size of the ECAM window of one bus, in bytes.
const ECAM_BUS: u64 = 1 << 20;

/// The address windows that a host bridge decodes.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Configuration space of all buses, starting with that of the first bus.
    pub ecam: Region,
    /// The window for the functions' memory regions.
    pub memory: Region,
    /// The buses behind the bridge.
    pub buses: BusRange,
}

/// Translates the requester ID of a message to a DeviceID, or to `None` if firmware describes no
/// route for it.
type Translation = dyn Fn(RequesterId) -> Option<DeviceId> + Send + Sync;

/// Assigns DeviceIDs to messages and forwards them to the doorbells.
pub struct Translator {
    translation: Box<Translation>,
    doorbells: Arc<Doorbells>,
}

impl Translator {
    /// Creates a translator that applies `translation`.
    pub fn new(
        doorbells: Arc<Doorbells>,
        translation: impl Fn(RequesterId) -> Option<DeviceId> + Send + Sync + 'static,
    ) -> Self {
        Self { translation: Box::new(translation), doorbells }
    }
}

impl SignalMsi<RequesterId> for Translator {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        match (self.translation)(from) {
            Some(device) => self.doorbells.signal_msi(device, message),
            None => self.doorbells.refuse(),
        }
    }
}

/// A host bridge and the buses behind it.
pub struct HostBridge {
    windows: Windows,
    root: Segment,
    /// All functions behind the bridge, for accesses to the memory window.
    functions: OnceLock<Vec<Arc<Function>>>,
}

impl HostBridge {
    /// Creates a host bridge for the bus `root`.
    pub fn new(windows: Windows, root: Segment) -> Self {
        Self { windows, root, functions: OnceLock::new() }
    }

    /// Returns the bridge's windows.
    pub fn windows(&self) -> Windows {
        self.windows
    }

    /// Returns all functions behind the bridge.
    pub fn functions(&self) -> &[Arc<Function>] {
        self.functions.get_or_init(|| self.root.functions())
    }

    /// Returns the bus device that handles accesses to configuration space.
    pub fn ecam(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(Ecam(Arc::clone(self)))
    }

    /// Returns the bus device that handles accesses to the memory window.
    pub fn memory(self: &Arc<Self>) -> Arc<dyn MmioDevice> {
        Arc::new(MemoryWindow(Arc::clone(self)))
    }

    /// Returns the function and BAR that decode this address, and the offset in the BAR.
    fn target(&self, address: u64) -> Option<(&Function, u8, u64)> {
        let (function, bar, offset) = self.functions().iter().find_map(|function| {
            let (bar, offset) = function.region_at(address)?;
            Some((function, bar, offset))
        })?;
        self.root.reaches(function, address).then_some((function, bar, offset))
    }
}

struct Ecam(Arc<HostBridge>);

impl Ecam {
    fn node(&self, offset: u64) -> Option<(&Node, u16)> {
        let bus = u8::try_from(u64::from(self.0.windows.buses.first) + offset / ECAM_BUS).ok()?;
        let [register_low, middle, ..] = (offset % ECAM_BUS).to_le_bytes();
        let place = u8::try_from((offset % ECAM_BUS) >> 12).ok()?;
        let register = u16::from_le_bytes([register_low, middle & 0xf]);
        self.0.root.node(bus, DevFn(place)).map(|node| (node, register))
    }
}

impl MmioDevice for Ecam {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        let value = match self.node(offset) {
            Some((Node::Function(function), register)) => function.config_read(register, width),
            Some((Node::Bridge(bridge, _), register)) => bridge.config_read(register, width),
            None => u32::MAX,
        };
        u64::from(value) & width.mask()
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        let value = u32::try_from(value & 0xffff_ffff).unwrap_or(0);
        match self.node(offset) {
            Some((Node::Function(function), register)) => {
                function.config_write(register, width, value);
            }
            Some((Node::Bridge(bridge, _), register)) => {
                bridge.config_write(register, width, value);
            }
            None => {}
        }
    }
}

struct MemoryWindow(Arc<HostBridge>);

impl MmioDevice for MemoryWindow {
    fn read(&self, offset: u64, width: AccessWidth) -> u64 {
        let address = self.0.windows.memory.base() + offset;
        let Some((function, bar, at)) = self.0.target(address) else { return width.mask() };
        match width {
            AccessWidth::Word => u64::from(function.region_read(bar, at)),
            AccessWidth::Double => {
                u64::from(function.region_read(bar, at + 4)) << 32
                    | u64::from(function.region_read(bar, at))
            }
            // The MSI-X table only accepts aligned words and double words.
            AccessWidth::Byte | AccessWidth::Half => 0,
        }
    }

    fn write(&self, offset: u64, width: AccessWidth, value: u64) {
        let address = self.0.windows.memory.base() + offset;
        let Some((function, bar, at)) = self.0.target(address) else { return };
        let [low, high] =
            [value & 0xffff_ffff, value >> 32].map(|half| u32::try_from(half).unwrap_or(0));
        match width {
            AccessWidth::Word => function.region_write(bar, at, low),
            AccessWidth::Double => {
                function.region_write(bar, at, low);
                function.region_write(bar, at + 4, high);
            }
            AccessWidth::Byte | AccessWidth::Half => {}
        }
    }
}

msi_types::debug_by!(HostBridge as "HostBridge", |it| {windows: it.windows});

impl fmt::Debug for Translator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Translator(..)")
    }
}
