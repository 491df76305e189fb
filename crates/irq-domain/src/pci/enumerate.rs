//! Depth-first enumeration, starting at a host bridge's root bus.

use super::bar_sizing::{BarSet, MAX_BARS};
use super::capabilities::{
    CLASS, COMMAND, COMMAND_MASTER, COMMAND_MEMORY, DEVICE, HEADER_TYPE, MULTI_FUNCTION,
    PORT_FROM_CONVENTIONAL, PORT_TO_CONVENTIONAL, PRIMARY_BUS, SECONDARY_BUS, SUBORDINATE_BUS,
    TYPE_BRIDGE, TYPE_ENDPOINT, VENDOR, port_type,
};
use super::function::{Bridge, Function};
use super::windows::{BridgeWindows, WindowPools};
use super::{ConfigSpace, PciError};
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{try_arc, try_push};
use msi_types::RequesterId;
use msi_types::pci::{BusRange, PciRequester, PciWindow};

/// Number of base address registers in a bridge.
const BRIDGE_BARS: u8 = 2;
/// Number of functions that fit on a bus: 32 devices with 8 functions each.
const PLACES: u16 = 256;
const FUNCTIONS_PER_DEVICE: u16 = 8;

/// Finds the functions behind a host bridge, bridges included, in depth-first order. Numbers the
/// buses, assigns each memory region an address from `windows`, and finds each function's alias.
/// `config` must return the configuration space at an address, as
/// [`Ecam::function`](super::Ecam::function) does.
///
/// No function may be in use: enumeration stops functions from decoding accesses and sending
/// messages, and bridges from forwarding. Bridges are enabled again on return. Other functions stay
/// disabled until [`Function::enable`] is called.
///
/// Context: task; may sleep.
///
/// Firmware-assigned bus numbers are kept where they are higher than all numbers in use, because
/// firmware's requester ID maps refer to them. Only the largest 32-bit memory window and the
/// largest 64-bit one are used. A 64-bit region is placed in the 64-bit window if it is
/// prefetchable or if the 32-bit window is full; a kernel that can't map the 64-bit window must
/// omit it from `windows`. I/O ports, expansion ROMs, CardBus bridges, virtual functions and
/// functions beyond the eighth (ARI) are not configured, and bridges have no spare room for
/// hot-plugged functions.
///
/// The alias is the requester ID that the host bridge sees. A bridge from PCI Express to
/// conventional PCI sends messages as device 0, function 0 of its secondary bus (PCI Express to
/// PCI/PCI-X Bridge 1.0 §2.3). Other bridges on conventional buses send with their own requester
/// ID. If there are several such bridges, the one nearest to the host determines the alias. Bridges
/// that deviate from these rules are not supported.
///
/// # Errors
/// [`PciError::NoMemory`] if the kernel's heap is exhausted.
pub fn enumerate<C: ConfigSpace + 'static>(
    buses: BusRange,
    windows: &[PciWindow],
    config: impl Fn(RequesterId) -> Option<C>,
) -> Result<Vec<Function>, PciError> {
    let mut walk = Walk {
        config,
        buses,
        last_bus: buses.first,
        windows: WindowPools::of_host(windows),
        found: Vec::new(),
        levels: Vec::new(),
    };
    walk.enter(Level::new(buses.first, None, None))?;
    while let Some(level) = walk.levels.last_mut() {
        match level.next_place() {
            Some(place) => walk.visit(place)?,
            None => walk.leave(),
        }
    }
    Ok(walk.found)
}

struct Walk<F> {
    config: F,
    buses: BusRange,
    /// The highest bus number in use.
    last_bus: u8,
    windows: WindowPools,
    found: Vec<Function>,
    /// The buses from the root down to the current one. Bus numbers increase along this path, so it
    /// has at most 256 buses.
    levels: Vec<Level>,
}

/// A bus that is being visited.
struct Level {
    bus: u8,
    /// Next device and function number to visit.
    next: u16,
    alias: Option<RequesterId>,
    bridge: Option<OpenBridge>,
}

/// The bridge to a bus that is being visited.
struct OpenBridge {
    bridge: Arc<Bridge>,
    windows: BridgeWindows,
    /// `true` if the bridge's own memory regions have been placed.
    placed: bool,
}

/// A function's position on its bus.
#[derive(Clone, Copy)]
struct Place {
    address: RequesterId,
    alias: Option<RequesterId>,
}

impl Level {
    fn new(bus: u8, alias: Option<RequesterId>, bridge: Option<OpenBridge>) -> Self {
        Self { bus, next: 0, alias, bridge }
    }

    fn next_place(&mut self) -> Option<Place> {
        let number = Some(self.next).filter(|number| *number < PLACES)?;
        self.next += 1;
        let address = RequesterId::new(u32::from(self.bus) << 8 | u32::from(number));
        Some(Place { address, alias: self.alias })
    }

    fn skip_device(&mut self) {
        self.next = self.next.next_multiple_of(FUNCTIONS_PER_DEVICE);
    }
}

impl<C: ConfigSpace + 'static, F: Fn(RequesterId) -> Option<C>> Walk<F> {
    fn visit(&mut self, place: Place) -> Result<(), PciError> {
        let config = (self.config)(place.address);
        let present = config.filter(|config| config.read16(VENDOR) != 0xffff);
        let kind = present.as_ref().map_or(0, |config| config.read8(HEADER_TYPE));
        if place.address.pci_function() == 0
            && kind & MULTI_FUNCTION == 0
            && let Some(level) = self.levels.last_mut()
        {
            level.skip_device();
        }
        let Some(config) = present else { return Ok(()) };
        match kind & !MULTI_FUNCTION {
            TYPE_ENDPOINT => self.add(place, config, MAX_BARS).map(|_| ()),
            TYPE_BRIDGE => {
                let index = self.add(place, config, BRIDGE_BARS)?;
                self.enter_bridge(place, index)
            }
            _ => Ok(()),
        }
    }

    /// Adds a function that has this number of base address registers. Returns its index.
    fn add(&mut self, place: Place, config: C, bars: u8) -> Result<usize, PciError> {
        self.found.try_reserve(1)?;
        let config: Arc<dyn ConfigSpace> = try_arc(config)?;
        let Place { address, alias } = place;
        let bridge = self.levels.last().and_then(|level| level.bridge.as_ref());
        self.found.push(Function {
            requester: PciRequester::new(address).with_alias(alias),
            vendor: config.read16(VENDOR),
            device: config.read16(DEVICE),
            class: config.read32(CLASS) >> 8,
            secondary: None,
            bridge: bridge.map(|open| open.bridge.clone()),
            bars: BarSet::place(&*config, bars, &mut self.windows),
            config,
        });
        Ok(self.found.len() - 1)
    }

    fn enter_bridge(&mut self, place: Place, index: usize) -> Result<(), PciError> {
        let Some(bridge) = self.found.get_mut(index) else { return Ok(()) };
        let (config, upstream) = (bridge.config.clone(), bridge.bridge.clone());
        let Some(secondary) = next_bus(&*config, self.last_bus, self.buses) else { return Ok(()) };
        bridge.secondary = Some(secondary);
        let placed = bridge.bars.unplaced.is_none();
        self.last_bus = secondary;
        config.write8(PRIMARY_BUS, place.address.pci_bus());
        config.write8(SECONDARY_BUS, secondary);
        config.write8(SUBORDINATE_BUS, self.buses.last);
        let alias = place.alias.or_else(|| alias_below(&*config, place.address, secondary));
        let windows = self.windows.open(&*config);
        let bridge = try_arc(Bridge { address: place.address, config, upstream })?;
        self.enter(Level::new(secondary, alias, Some(OpenBridge { bridge, windows, placed })))
    }

    /// Ends a visit to a bus.
    fn leave(&mut self) {
        let Some(OpenBridge { bridge, windows, placed }) =
            self.levels.pop().and_then(|level| level.bridge)
        else {
            return;
        };
        let config = &bridge.config;
        config.write8(SUBORDINATE_BUS, self.last_bus);
        self.windows.close(&**config, windows);
        let on = if placed { COMMAND_MEMORY | COMMAND_MASTER } else { COMMAND_MASTER };
        config.write16(COMMAND, config.read16(COMMAND) | on);
    }
}

impl<F> Walk<F> {
    fn enter(&mut self, level: Level) -> Result<(), PciError> {
        Ok(try_push(&mut self.levels, level)?)
    }
}

/// Returns the number for the bus behind a bridge: firmware's if it is higher than all numbers in
/// use, otherwise the next free one. Returns `None` if the host bridge has no bus number left.
fn next_bus(config: &dyn ConfigSpace, last: u8, buses: BusRange) -> Option<u8> {
    let usable = |bus: &u8| *bus > last && buses.contains(*bus);
    let assigned = Some(config.read8(SECONDARY_BUS)).filter(usable);
    assigned.or_else(|| last.checked_add(1).filter(usable))
}

/// Returns the requester ID that a bridge substitutes in messages from below it, if any.
fn alias_below(
    config: &dyn ConfigSpace,
    bridge: RequesterId,
    secondary: u8,
) -> Option<RequesterId> {
    match port_type(config) {
        None | Some(PORT_FROM_CONVENTIONAL) => Some(bridge),
        Some(PORT_TO_CONVENTIONAL) => Some(RequesterId::pci(secondary, 0, 0)),
        Some(_) => None,
    }
}
