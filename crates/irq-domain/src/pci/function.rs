//! Functions found by enumeration, and the message store of a function: MSI-X if available,
//! otherwise MSI.

use super::bar_sizing::BarSet;
use super::capabilities::{
    COMMAND, COMMAND_MASTER, COMMAND_MEMORY, HEADER_TYPE, MULTI_FUNCTION, TYPE_BRIDGE,
};
use super::isolation_groups::Isolation;
use super::windows::Bar;
use super::{
    AccessContext, ConfigSpace, MsiStore, MsixCapability, MsixRegions, MsixStore, PciError,
    TableMemory,
};
use crate::runtime::Host;
use alloc::sync::Arc;
use doorbell_fallible::try_arc;
use msi_types::pci::PciRequester;
use msi_types::{MessageStore, RequesterId, Shape};

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
