//! Depth-first enumeration, starting at a host bridge's root bus; the functions found, and the
//! message store of a function: MSI-X if available, otherwise MSI.
//!
//!  Functions that hardware does not isolate from each other, and that must therefore be assigned
//! to the same guest.
//!
//! The rules are those of Linux's IOMMU groups (`pci_device_group` in drivers/iommu/iommu.c and
//! `pci_acs_enabled` in drivers/pci/pci.c), which VFIO requires to be assigned as a whole.

use super::windows::{Bar, BarSet, BridgeWindows, MAX_BARS, WindowPools};
use super::{
    AccessContext, CLASS, COMMAND, COMMAND_MASTER, COMMAND_MEMORY, ConfigSpace, DEVICE,
    HEADER_TYPE, MULTI_FUNCTION, MsiStore, MsixCapability, MsixRegions, MsixStore, PORT_DOWNSTREAM,
    PORT_EVENT_COLLECTOR, PORT_FROM_CONVENTIONAL, PORT_ROOT, PORT_TO_CONVENTIONAL, PRIMARY_BUS,
    PciError, SECONDARY_BUS, SUBORDINATE_BUS, TYPE_BRIDGE, TYPE_ENDPOINT, TableMemory, VENDOR,
    extended_capability, port_type,
};
use crate::runtime::Host;
use alloc::sync::Arc;
use alloc::vec::Vec;
use doorbell_fallible::{try_arc, try_push};
use msi_types::pci::{BusRange, PciRequester, PciWindow};
use msi_types::{MessageStore, RequesterId, Shape};

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

/// A function that [`enumerate`](super::enumerate) has found and assigned addresses. The function
/// neither decodes its addresses nor sends messages until [`enable`](Self::enable) is called.
#[derive(Clone)]
pub struct Function {
    pub(super) requester: PciRequester,
    pub(super) vendor: u16,
    pub(super) device: u16,
    pub(super) class: u32,
    pub(super) secondary: Option<u8>,
    pub(super) config: Arc<dyn ConfigSpace>,
    pub(super) bridge: Option<Arc<Bridge>>,
    pub(super) bars: BarSet,
}

/// A bridge upstream of a function.
pub(super) struct Bridge {
    pub(super) address: RequesterId,
    pub(super) config: Arc<dyn ConfigSpace>,
    /// The bridge upstream of this one. Buses have 8-bit numbers, so there are at most 255 bridges.
    pub(super) upstream: Option<Arc<Bridge>>,
}

impl Bridge {
    fn forwards(&self) -> bool {
        self.config.read16(COMMAND) & COMMAND_MASTER != 0
    }
}

impl Function {
    /// Returns the function's address, and the alias that its messages carry if it is behind a
    /// bridge to conventional PCI.
    pub fn requester(&self) -> PciRequester {
        self.requester
    }

    /// Returns the vendor ID.
    pub fn vendor(&self) -> u16 {
        self.vendor
    }

    /// Returns the device ID.
    pub fn device(&self) -> u16 {
        self.device
    }

    /// Returns the class code (24 bits): base class, subclass and programming interface.
    pub fn class(&self) -> u32 {
        self.class
    }

    /// Returns the number of the bus behind the function, if it is a bridge that was assigned one.
    pub fn secondary_bus(&self) -> Option<u8> {
        self.secondary
    }

    /// Returns `true` if the function is a bridge to another bus, whether or not that bus was
    /// assigned a number.
    pub fn is_bridge(&self) -> bool {
        self.config.read8(HEADER_TYPE) & !MULTI_FUNCTION == TYPE_BRIDGE
    }

    /// Reads what isolates the function from others, for
    /// [`isolation_groups`](super::isolation_groups).
    pub fn isolation(&self) -> Isolation {
        let bridge = self.bridge.as_ref().map(|bridge| bridge.address);
        Isolation::read(&*self.config, self.requester, bridge)
    }

    /// Returns the function's configuration space.
    pub fn config(&self) -> &Arc<dyn ConfigSpace> {
        &self.config
    }

    /// Returns the memory region behind a base address register. Returns `None` if the register has
    /// no region, or if the windows had no room for it.
    pub fn bar(&self, index: u8) -> Option<Bar> {
        self.bars.placed.get(usize::from(index)).copied().flatten()
    }

    /// Enables decoding of the function's memory regions, and bus mastering (messages require it).
    /// This function also writes the base address registers, so it may be called again after a
    /// reset. It does not restore a bridge's bus numbers and windows; a kernel whose bridges lose
    /// power must save these registers (0x18 to 0x33 in configuration space) and write them back,
    /// outermost bridge first. A driver that needs INTx must clear the INTx Disable bit itself (bit
    /// 10 in the command register).
    ///
    /// # Errors
    /// [`PciError::Unplaced`] if a region has no address, because the device would decode that
    /// region at address 0.
    pub fn enable(&self) -> Result<(), PciError> {
        if let Some(bir) = self.bars.unplaced {
            return Err(PciError::Unplaced { bir });
        }
        self.bars.restore(&*self.config);
        let command = self.config.read16(COMMAND);
        self.config.write16(COMMAND, command | COMMAND_MEMORY | COMMAND_MASTER);
        Ok(())
    }

    /// Creates the function's message store, like [`find_store`]. `map` must map the memory regions
    /// that hold the MSI-X table and pending bits. The function must be [enabled](Self::enable).
    ///
    /// Context: task; may sleep.
    ///
    /// # Errors
    /// [`PciError::NoMessages`] if the function has neither MSI-X nor MSI; [`PciError::NotMapped`]
    /// if a region that MSI-X uses has no address or `map` returns `None` for it;
    /// [`PciError::NoMemory`] if the heap is exhausted; another [`PciError`] if the MSI-X or MSI
    /// capability is malformed.
    pub fn store(
        &self,
        host: Arc<dyn Host>,
        mut map: impl FnMut(Bar) -> Option<Arc<dyn TableMemory>>,
    ) -> Result<FunctionStore, PciError> {
        let config = PlacedFunction {
            config: self.config.clone(),
            requester: self.requester.at_host(),
            bridge: self.bridge.clone(),
        };
        find_store(try_arc(config)?, host, |bir| map(self.bar(bir)?))
    }
}

/// The configuration space of a function whose path to the host is known.
struct PlacedFunction {
    config: Arc<dyn ConfigSpace>,
    requester: RequesterId,
    bridge: Option<Arc<Bridge>>,
}

impl ConfigSpace for PlacedFunction {
    fn read8(&self, offset: u16) -> u8 {
        self.config.read8(offset)
    }

    fn read16(&self, offset: u16) -> u16 {
        self.config.read16(offset)
    }

    fn read32(&self, offset: u16) -> u32 {
        self.config.read32(offset)
    }

    fn write8(&self, offset: u16, value: u8) {
        self.config.write8(offset, value);
    }

    fn write16(&self, offset: u16, value: u16) {
        self.config.write16(offset, value);
    }

    fn write32(&self, offset: u16, value: u32) {
        self.config.write32(offset, value);
    }

    fn context(&self) -> AccessContext {
        self.config.context()
    }

    fn requester(&self) -> Option<RequesterId> {
        Some(self.requester)
    }

    fn closed_bridge(&self) -> Option<RequesterId> {
        let nearest = self.bridge.as_deref();
        let mut bridges = core::iter::successors(nearest, |bridge| bridge.upstream.as_deref());
        bridges.find(|bridge| !bridge.forwards()).map(|bridge| bridge.address)
    }
}

msi_types::debug_by!(
    Function as "Function",
    |it| {requester: it.requester, vendor: format_args!("{:#06x}", it.vendor), device: format_args!("{:#06x}", it.device)}
);

/// A function's message store, and the shape in which to [allocate](crate::MsiDevice::allocate) its
/// vectors.
#[derive(Clone)]
pub struct FunctionStore {
    /// The store.
    pub store: Arc<dyn MessageStore>,
    /// Independent vectors (MSI-X), or an aligned group (MSI).
    pub shape: Shape,
}

/// Creates a function's message store: MSI-X if the function has it, otherwise MSI. `map` must map
/// the memory region of a base address register. The closure is only called for MSI-X.
///
/// Context: task; may sleep.
///
/// # Errors
/// This function can return any [`PciError`] except [`PciError::NoCapability`]. If the function has
/// an MSI-X capability that cannot be used, the result is an error; a caller that wants to use MSI
/// instead must call [`MsiStore::new`].
///
/// # Example
/// ```
/// use irq_domain::pci::{ConfigSpace, TableMemory, find_store};
/// use irq_domain::{Host, Interrupts, MsiDevice, MsiDeviceConfig};
/// use msi_types::{MsiParent, RequesterId};
/// use std::{error::Error, sync::Arc};
///
/// /// Gives a function up to 32 vectors. `map` maps one of its memory regions.
/// fn attach(
///     interrupts: &Interrupts,
///     host: Arc<dyn Host>,
///     parent: Arc<dyn MsiParent>, // from firmware
///     (requester, config): (RequesterId, Arc<dyn ConfigSpace>),
///     map: impl FnMut(u8) -> Option<Arc<dyn TableMemory>>,
/// ) -> Result<MsiDevice, Box<dyn Error>> {
///     let found = find_store(config, host, map)?;
///     let config = MsiDeviceConfig::new("nvme0", requester, parent, found.store);
///     let device = MsiDevice::attach(interrupts, config)?;
///     device.allocate(found.shape, 1..=32)?;
///     Ok(device)
/// }
/// ```
pub fn find_store(
    config: Arc<dyn ConfigSpace>,
    host: Arc<dyn Host>,
    mut map: impl FnMut(u8) -> Option<Arc<dyn TableMemory>>,
) -> Result<FunctionStore, PciError> {
    let capability = match MsixCapability::find(&*config) {
        Ok(capability) => capability,
        Err(PciError::NoCapability { .. }) => return msi(config, host),
        Err(error) => return Err(error),
    };
    let [table, pending] = [capability.table.bir(), capability.pending.bir()]
        .map(|bir| map(bir).ok_or(PciError::NotMapped { bir }));
    let regions = MsixRegions { table: table?, pending: pending? };
    let store = MsixStore::new(capability, config, regions, host)?;
    Ok(FunctionStore { store: Arc::new(store), shape: Shape::Independent })
}

fn msi(config: Arc<dyn ConfigSpace>, host: Arc<dyn Host>) -> Result<FunctionStore, PciError> {
    match MsiStore::new(config, host) {
        Ok(store) => Ok(FunctionStore { store: Arc::new(store), shape: Shape::AlignedGroup }),
        Err(PciError::NoCapability { .. }) => Err(PciError::NoMessages),
        Err(error) => Err(error),
    }
}

msi_types::debug_by!(FunctionStore as "FunctionStore", |it| {shape: it.shape});

/// Access Control Services (PCI Express Base §7.7.11): the extended capability's ID, and the
/// offsets of its registers.
const ACS: u16 = 0x0d;
const ACS_CAPABILITY: u16 = 4;
const ACS_CONTROL: u16 = 6;
/// Source validation, request redirect, completion redirect and upstream forwarding: with all of
/// them, a request reaches no other function before the IOMMU has translated it.
const ACS_ISOLATES: u16 = 1 << 0 | 1 << 2 | 1 << 3 | 1 << 4;
/// Number of buses, and thus the maximum number of bridges above a function.
const BUSES: u16 = 256;

/// Means that isolate a function from the other functions of its segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Isolation {
    /// The function's address, and the requester ID that it shares with other functions, if any.
    pub requester: PciRequester,
    /// Address of the bridge to the function's bus, or `None` on a root bus.
    pub bridge: Option<RequesterId>,
    /// `true` if the function's device may have several functions. `false` for a virtual function
    /// (SR-IOV), whatever its function number is.
    pub multifunction: bool,
    /// `true` if the function does not pass on requests to other functions of its device, nor, if
    /// it is a bridge, between the functions below it.
    pub redirects: bool,
}

impl Isolation {
    /// Reads a function's isolation from configuration space. `bridge` is the address of the bridge
    /// to its bus. Call [`enable_acs`] first.
    ///
    /// Context: task; may sleep.
    pub fn read(
        config: &dyn ConfigSpace,
        requester: PciRequester,
        bridge: Option<RequesterId>,
    ) -> Self {
        let multifunction = requester.function.pci_function() != 0
            || config.read8(HEADER_TYPE) & MULTI_FUNCTION != 0;
        let redirects = match port_type(config) {
            None | Some(PORT_TO_CONVENTIONAL | PORT_FROM_CONVENTIONAL | PORT_EVENT_COLLECTOR) => {
                false
            }
            Some(PORT_ROOT | PORT_DOWNSTREAM) => acs_isolates(config),
            // A device with one function has no other function to pass requests to (PCI Express
            // Base §6.12.1.3).
            Some(_) => !multifunction || acs_isolates(config),
        };
        Self { requester, bridge, multifunction, redirects }
    }

    /// Returns `true` if hardware does not isolate two functions. `open_bridge` is the bridge to
    /// this function's bus if requests from that bus may reach other functions.
    fn reaches(&self, other: &Self, open_bridge: Option<RequesterId>) -> bool {
        let [here, there] = [self, other].map(|it| it.requester.function);
        let is_open = |it: &Self| it.multifunction && !it.redirects;
        self.requester.at_host() == other.requester.at_host()
            || open_bridge.is_some_and(|at| other.bridge == Some(at) || there == at)
            || is_open(self) && is_open(other) && here.get() >> 3 == there.get() >> 3
    }
}

/// Makes a function redirect requests to the host bridge instead of passing them on to other
/// functions, as far as it can (Access Control Services). Call this for each function, bridges
/// included, before [`Isolation::read`].
///
/// Context: task; may sleep.
pub fn enable_acs(config: &dyn ConfigSpace) {
    let express = port_type(config);
    if let Some(acs) = express.and_then(|_| extended_capability(config, ACS)) {
        let capable = config.read16(acs + ACS_CAPABILITY);
        config.write16(acs + ACS_CONTROL, capable & ACS_ISOLATES);
    }
}

/// Returns `true` if Access Control Services isolate a function. A service that the function cannot
/// control is assumed to be always on (`pci_acs_flags_enabled`).
fn acs_isolates(config: &dyn ConfigSpace) -> bool {
    extended_capability(config, ACS).is_some_and(|acs| {
        let required = config.read16(acs + ACS_CAPABILITY) & ACS_ISOLATES;
        config.read16(acs + ACS_CONTROL) & required == required
    })
}

/// Divides the functions of a segment into groups that hardware isolates from each other. Returns
/// the number of each function's group: the index of its first member.
///
/// Functions of different groups may be assigned to different guests, if an IOMMU confines each
/// requester ID. A hypervisor must keep the bridges, because a guest that owns a bridge can disable
/// the functions below it. `functions` must include the bridges; functions below a missing bridge
/// are in one group. The time is quadratic in the number of functions.
///
/// Two functions are in the same group if
/// - they share a requester ID at the host bridge, or
/// - they are on the same bus, or one is the bridge to the other's bus, and not every bridge from
///   that bus to the root redirects requests, or
/// - they belong to the same device, and neither redirects requests.
///
/// Linux also separates the functions of devices that it knows to isolate without Access Control
/// Services (`pci_dev_acs_enabled` in drivers/pci/quirks.c), such as Intel's integrated ones. They
/// are in one group here.
///
/// Like Linux, we do not join downstream ports of a switch that lack Access Control Services,
/// although such a port may pass requests to its neighbors. If guests must not trust each other's
/// devices, treat the functions below such a switch as one group.
///
/// ```
/// use irq_domain::pci::{Isolation, isolation_groups};
/// use msi_types::RequesterId;
/// use msi_types::pci::PciRequester;
///
/// # fn main() -> Result<(), irq_domain::pci::PciError> {
/// let function = |address: RequesterId, bridge| Isolation {
///     requester: PciRequester::new(address),
///     bridge,
///     multifunction: false,
///     redirects: true,
/// };
/// let port = RequesterId::pci(0, 1, 0);
/// let open_port = RequesterId::pci(0, 2, 0);
/// let functions = [
///     function(port, None),
///     function(RequesterId::pci(1, 0, 0), Some(port)),
///     // A root port without Access Control Services.
///     Isolation { redirects: false, ..function(open_port, None) },
///     function(RequesterId::pci(2, 0, 0), Some(open_port)),
/// ];
/// let groups = isolation_groups(&functions)?;
/// assert_ne!(groups[0], groups[1], "the device below the first port has a group of its own");
/// assert_ne!(groups[1], groups[3]);
/// assert_eq!(groups[2], groups[3], "the second port and its device are not isolated");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`PciError::NoMemory`] if the kernel's heap is exhausted.
pub fn isolation_groups(functions: &[Isolation]) -> Result<Vec<usize>, PciError> {
    let mut groups: Vec<usize> = Vec::new();
    groups.try_reserve_exact(functions.len())?;
    groups.extend(0..functions.len());
    for (index, function) in functions.iter().enumerate() {
        let open_bridge = function.bridge.filter(|bridge| !reaches_host(functions, *bridge));
        for (other_index, other) in functions.iter().enumerate() {
            if function.reaches(other, open_bridge)
                && let (Some(&first), Some(&second)) = (groups.get(index), groups.get(other_index))
                && first != second
            {
                let joined = groups.iter_mut().filter(|group| **group == first.max(second));
                joined.for_each(|group| *group = first.min(second));
            }
        }
    }
    Ok(groups)
}

/// Returns `true` if requests from below a bridge reach the host before they can reach another
/// function.
fn reaches_host(functions: &[Isolation], bridge: RequesterId) -> bool {
    let mut next = Some(bridge);
    // A path of more bridges than there are buses is circular.
    for _ in 0..BUSES {
        let Some(address) = next else { return true };
        let bridge = functions.iter().find(|it| it.requester.function == address);
        let Some(bridge) = bridge.filter(|bridge| bridge.redirects) else { return false };
        next = bridge.bridge;
    }
    false
}
