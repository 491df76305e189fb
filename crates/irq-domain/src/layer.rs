//! Layers between a device and its controller: buses with quirks, IOMMUs, a hypervisor.
//!
//! A [`Layer`] only describes what it changes. [`LayeredParent`] combines it with the parent below
//! into an [`MsiParent`], and implements forwarding, rollback and the record of each device's
//! messages once for all layers. Masking, pending state and vector ownership bypass the layer:
//! these calls are forwarded straight to the parent.
//!
//! [`DoorbellMapping`] maps doorbells behind an IOMMU, where a device can only reach pages that are
//! mapped for it. [`ShimLayer`] is a bus with quirks: it rewrites requester IDs and addresses, or has
//! narrow data or address paths.

mod layered_parent;

pub use layered_parent::LayeredParent;
pub use msi_types::Hypervisor;

use crate::runtime::Host;
use alloc::collections::TryReserveError;
use alloc::sync::Arc;
use core::fmt;
use doorbell_fallible::lock::TaskLock;
use doorbell_fallible::{SortedMap, try_arc};
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    Capabilities, DmaIsolation, DoorbellPage, Fit, Granule, Isolation, MsiError, MsiMessage,
    MsiParent, NotDmaIsolated, NotIsolated, Properties, Property, RequesterId, Rewrite,
    Surroundings, Tier,
};

/// Returns the rewrite limit for the level below a layer that chooses addresses. When a message is
/// rewritten, the layer's own output is checked against the endpoint's limit, so the level below
/// only has to keep the data unchanged.
const fn unaddressed(rewrite: Rewrite) -> Rewrite {
    match rewrite {
        Rewrite::LowWordOnly | Rewrite::Never => Rewrite::AddressOnly,
        Rewrite::Masked | Rewrite::Atomic64 | Rewrite::AddressOnly => rewrite,
    }
}

/// A layer between a device and its controller. Functions have the following context unless they
/// state a different one.
///
/// Context: task; may sleep.
pub trait Layer: Send + Sync {
    /// Returns the layer's name, and how it changes the capabilities and properties of the levels
    /// below.
    ///
    /// Context: any.
    fn tier(&self) -> Tier;

    /// Returns the requester ID that the level below sees. The result must not change while the
    /// device is attached.
    ///
    /// Context: any.
    ///
    /// # Errors
    /// [`MsiError::Bus`] if the layer cannot forward this requester's messages.
    fn requester(&self, device: RequesterId) -> Result<RequesterId, MsiError> {
        Ok(device)
    }

    /// Returns the fit that the level below must satisfy, so that the endpoint can hold the message
    /// after this layer has translated it.
    ///
    /// Context: any.
    fn fit(&self, fit: Fit) -> Fit {
        fit
    }

    /// Translates a message from the level below into the one that the device must store, and
    /// acquires the resources for it (e.g. maps a page). `fit` describes what the device can store.
    /// Every message that this function returns is [released](Self::let_go) exactly once.
    fn hold(
        &self,
        device: RequesterId,
        below: MsiMessage,
        fit: Fit,
    ) -> Result<MsiMessage, MsiError> {
        let _ = (device, fit);
        Ok(below)
    }

    /// Releases the resources for a message that [`hold`](Self::hold) returned and that the device
    /// no longer stores.
    fn let_go(&self, device: RequesterId, message: MsiMessage) {
        let _ = (device, message);
    }

    /// Returns whether the device is prevented from triggering other devices' interrupts, given the
    /// isolation at the level below. `page` lists the registers that share a page with the
    /// doorbells.
    ///
    /// Context: any.
    fn isolation(
        &self,
        device: RequesterId,
        below: Isolation,
        page: &dyn Fn(Granule) -> DoorbellPage,
    ) -> Isolation {
        let _ = (device, page);
        below
    }

    /// Returns whether the device is prevented from accessing memory that does not belong to it,
    /// given the isolation at the level below.
    ///
    /// Context: any.
    fn dma_isolation(&self, device: RequesterId, below: DmaIsolation) -> DmaIsolation {
        let _ = device;
        below
    }

    /// Explains whether a message reaches the level below. `stored` is the message that the device
    /// stores, and `below` is the message that the level below composed.
    fn explain(&self, device: RequesterId, stored: MsiMessage, below: MsiMessage) -> Explanation {
        let _ = (device, stored, below);
        Explanation::new()
    }

    /// Writes one readable line about this layer, without indentation.
    fn describe(&self, device: RequesterId, out: &mut dyn fmt::Write) -> fmt::Result {
        writeln!(out, "{}: requester {device}", self.tier().name)
    }
}

impl Layer for Hypervisor {
    fn tier(&self) -> Tier {
        (*self).tier()
    }
}

/// Returns the parent that devices must use in these surroundings: in a guest, the hypervisor's
/// layer directly over the virtual controller, below all other layers.
///
/// # Errors
/// Returns an error if the kernel's heap is exhausted.
pub fn surrounded(
    controller: Arc<dyn MsiParent>,
    surroundings: Surroundings,
    host: &Arc<dyn Host>,
) -> Result<Arc<dyn MsiParent>, TryReserveError> {
    Ok(match surroundings.hypervisor() {
        Some(layer) => try_arc(LayeredParent::new(layer, controller, host.clone()))?,
        None => controller,
    })
}

/// An IOMMU address space, numbered by the IOMMU driver. Several devices may share an address
/// space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct IommuDomain(pub u32);

/// The translation of doorbell writes by the IOMMU in a domain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DoorbellMode {
    /// Writes are not translated. No page has to be mapped, and devices can write to all memory, so
    /// they don't count as [isolated from memory](msi_types::DmaIsolation) unless the level below
    /// isolates them.
    Identity,
    /// Writes are translated in pages of this size. The IOMMU driver chooses the address at which
    /// it maps the doorbell's page.
    Mapped(Granule),
    /// The second of two stages. The guest's stage translates the address that the device stores
    /// (`stored`) to the guest-physical address of the virtual doorbell (`doorbell`). The second
    /// stage maps the physical doorbell's page at that address.
    Nested {
        /// Page size of the second stage.
        granule: Granule,
        /// Doorbell address that the device stores, in the guest's own I/O address space.
        stored: u64,
        /// Guest-physical address that the guest's stage translates `stored` to.
        doorbell: u64,
    },
    /// The hardware passes writes to this region untranslated (x86: 0xfee0_0000, 1 MiB). All
    /// doorbells must be inside it.
    Reserved {
        /// First address of the region.
        base: u64,
        /// Length of the region in bytes.
        length: u64,
    },
}

/// Constraint on the I/O virtual address of a mapped page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IovaConstraint {
    /// The page may be mapped at any free address below 2^`address_bits`, the limit of the
    /// endpoint's address register.
    Within {
        /// Number of address bits: 32 or 64.
        address_bits: u8,
    },
    /// The page must be mapped at exactly this address.
    At(u64),
}

impl IovaConstraint {
    /// Returns `true` if the page may be mapped at `at`.
    pub const fn admits(self, at: u64) -> bool {
        match self {
            Self::Within { address_bits } => address_bits >= 64 || at >> address_bits == 0,
            Self::At(page) => at == page,
        }
    }
}

/// The interface that the layer requires of an IOMMU driver, which must lock internally. Functions
/// have the following context unless they state a different one.
///
/// Context: task; may sleep.
pub trait Iommu: Send + Sync {
    /// Returns a device's address space, or `None` if the IOMMU does not serve the device. Without
    /// an address space, the device's writes pass unchanged, as in [`DoorbellMode::Identity`]. The
    /// result must not change while the device holds a message.
    ///
    /// Context: any.
    fn domain(&self, device: RequesterId) -> Option<IommuDomain>;

    /// Returns how doorbell writes from a domain's devices are translated. The result must not
    /// change while one of these devices holds a message.
    ///
    /// Context: any.
    fn mode(&self, domain: IommuDomain) -> DoorbellMode;

    /// Maps a page of doorbells (a physical address, aligned to the mode's granule) for the
    /// domain's devices, as writable device memory. On return, the devices can write to the page.
    /// Returns the page's I/O virtual address, which the constraint must
    /// [admit](IovaConstraint::admits). A page may be mapped at several addresses, for endpoints
    /// with different address widths.
    ///
    /// # Errors
    /// Returns the reason for the failure as text.
    fn map(
        &self,
        domain: IommuDomain,
        page: u64,
        constraint: IovaConstraint,
    ) -> Result<u64, &'static str>;

    /// Unmaps a page at an address returned by [`map`](Self::map). On return, devices can no longer
    /// write to the page at this address.
    fn unmap(&self, domain: IommuDomain, mapped: u64);

    /// Translates an address to which a device in the domain writes, by reading the tables that the
    /// hardware uses. The provided method returns [`Translated::Unknown`].
    fn translate(&self, domain: IommuDomain, address: u64) -> Translated {
        let _ = (domain, address);
        Translated::Unknown
    }
}

/// Result of [`Iommu::translate`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Translated {
    /// The driver cannot read the translation.
    Unknown,
    /// The IOMMU refuses writes to the address.
    Refused,
    /// The IOMMU translates the address to this physical address.
    To(u64),
}

/// A layer that maps doorbells for devices behind an IOMMU, and has the devices store the mapped
/// addresses.
///
/// A page is mapped once per domain, before the first message that needs it is stored. If the
/// doorbell depends on the target CPU, the page is mapped before the interrupt moves to that CPU.
/// The page is unmapped once the last message that needs it has been released. If an existing
/// mapping is beyond the range of an endpoint's address register, the page is mapped again at a
/// lower address.
#[doc(alias = "iommu_dma_prepare_msi")]
#[doc(alias = "iommu_dma_compose_msi_msg")]
pub struct DoorbellMapping<I> {
    iommu: I,
    host: Arc<dyn Host>,
    /// Mapped pages, keyed by domain and the address that devices use.
    pages: TaskLock<SortedMap<(IommuDomain, u64), Mapped>>,
}

/// A page of doorbells, mapped in a domain.
struct Mapped {
    page: u64,
    users: usize,
}

impl<I: Iommu> DoorbellMapping<I> {
    /// Creates the layer for doorbells behind `iommu`.
    pub fn new(iommu: I, host: Arc<dyn Host>) -> Self {
        Self { iommu, host, pages: TaskLock::new(SortedMap::new()) }
    }

    /// Returns the IOMMU.
    pub fn iommu(&self) -> &I {
        &self.iommu
    }

    /// Returns the number of mapped pages across all domains.
    ///
    /// Context: task; may sleep.
    pub fn pages(&self) -> usize {
        self.pages.lock(&*self.host).len()
    }

    /// Maps a page, or adds a user to an existing mapping. Returns its address. `unmapped` is the
    /// error for a page that cannot be mapped for this reason.
    fn take(
        &self,
        domain: IommuDomain,
        page: u64,
        constraint: IovaConstraint,
        unmapped: impl Fn(&'static str) -> MsiError,
    ) -> Result<u64, MsiError> {
        let mut pages = self.pages.lock(&*self.host);
        let of_domain = pages.iter_mut_from((domain, 0)).take_while(|((of, _), _)| *of == domain);
        for ((_, at), mapped) in of_domain.filter(|((_, at), _)| constraint.admits(*at)) {
            if mapped.page == page {
                mapped.users += 1;
                return Ok(at);
            }
            if let IovaConstraint::At(_) = constraint {
                return Err(unmapped("the guest maps two doorbells at one address"));
            }
        }
        let no_memory = MsiError::NoMemory("the pages of doorbells that are mapped");
        pages.reserve().map_err(|_| no_memory)?;
        let at = self.iommu.map(domain, page, constraint).map_err(unmapped)?;
        pages.insert((domain, at), Mapped { page, users: 1 });
        Ok(at)
    }

    fn give_back(&self, domain: IommuDomain, at: u64) {
        let mut pages = self.pages.lock(&*self.host);
        let Some(mapped) = pages.get_mut((domain, at)) else { return };
        mapped.users -= 1;
        if mapped.users == 0 {
            pages.remove((domain, at));
            self.iommu.unmap(domain, at);
        }
    }

    fn mode_of(&self, device: RequesterId) -> Option<(IommuDomain, DoorbellMode)> {
        let domain = self.iommu.domain(device)?;
        Some((domain, self.iommu.mode(domain)))
    }

    /// Maps a doorbell for a device. Returns the address that the device must store.
    fn address(&self, device: RequesterId, doorbell: u64, fit: Fit) -> Result<u64, MsiError> {
        let unmapped = |reason| MsiError::Unmapped { device, address: doorbell, reason };
        let Some((domain, mode)) = self.mode_of(device) else { return Ok(doorbell) };
        match mode {
            DoorbellMode::Identity => Ok(doorbell),
            DoorbellMode::Mapped(granule) => {
                let page = granule.page(doorbell);
                let constraint = IovaConstraint::Within { address_bits: fit.address_bits };
                let at = self.take(domain, page, constraint, unmapped)?;
                Ok(at | granule.offset(doorbell))
            }
            DoorbellMode::Nested { granule, stored, doorbell: seen } => {
                if granule.offset(seen) != granule.offset(doorbell) {
                    return Err(unmapped(
                        "the guest's doorbell and the physical one have different page offsets",
                    ));
                }
                let (page, constraint) =
                    (granule.page(doorbell), IovaConstraint::At(granule.page(seen)));
                self.take(domain, page, constraint, unmapped)?;
                Ok(stored)
            }
            DoorbellMode::Reserved { base, length } => match doorbell.checked_sub(base) {
                Some(offset) if offset < length => Ok(doorbell),
                _ => Err(unmapped(
                    "it is outside the region that the hardware reserves for messages",
                )),
            },
        }
    }
}

impl<I: Iommu> Layer for DoorbellMapping<I> {
    fn tier(&self) -> Tier {
        // The address isn't known until the doorbell has been mapped.
        Tier::new("iommu").with_relieves(Properties::NONE.with(Property::WideAddress))
    }

    fn fit(&self, fit: Fit) -> Fit {
        fit.with_address_bits(64).with_rewrite(unaddressed(fit.rewrite))
    }

    fn hold(
        &self,
        device: RequesterId,
        below: MsiMessage,
        fit: Fit,
    ) -> Result<MsiMessage, MsiError> {
        Ok(MsiMessage { address: self.address(device, below.address, fit)?, ..below })
    }

    fn let_go(&self, device: RequesterId, message: MsiMessage) {
        match self.mode_of(device) {
            Some((domain, DoorbellMode::Mapped(granule))) => {
                self.give_back(domain, granule.page(message.address));
            }
            Some((domain, DoorbellMode::Nested { granule, doorbell, .. })) => {
                self.give_back(domain, granule.page(doorbell));
            }
            Some((_, DoorbellMode::Identity | DoorbellMode::Reserved { .. })) | None => {}
        }
    }

    fn isolation(
        &self,
        device: RequesterId,
        below: Isolation,
        page: &dyn Fn(Granule) -> DoorbellPage,
    ) -> Isolation {
        let Isolation::Isolated(_) = below else { return below };
        let Some((_, mode)) = self.mode_of(device) else { return below };
        match mode {
            DoorbellMode::Identity | DoorbellMode::Reserved { .. } => below,
            DoorbellMode::Mapped(granule) | DoorbellMode::Nested { granule, .. } => {
                match page(granule) {
                    DoorbellPage::Alone | DoorbellPage::InBridge => below,
                    DoorbellPage::HoldsControls(name) => {
                        Isolation::NotIsolated(NotIsolated::DoorbellPageHoldsControls(name))
                    }
                    DoorbellPage::Unknown => {
                        Isolation::NotIsolated(NotIsolated::DoorbellPageUnknown)
                    }
                }
            }
        }
    }

    fn dma_isolation(&self, device: RequesterId, below: DmaIsolation) -> DmaIsolation {
        match self.mode_of(device) {
            None => below,
            Some((_, DoorbellMode::Identity)) if below == DmaIsolation::Isolated => below,
            Some((_, DoorbellMode::Identity)) => {
                DmaIsolation::NotIsolated(NotDmaIsolated::Identity)
            }
            Some(_) => DmaIsolation::Isolated,
        }
    }

    fn explain(&self, device: RequesterId, stored: MsiMessage, below: MsiMessage) -> Explanation {
        let (iova, doorbell) = (stored.address, below.address);
        let Some((domain, mode)) = self.mode_of(device) else { return Explanation::new() };
        if mode == DoorbellMode::Identity {
            return Explanation::new();
        }
        let mapped = Explanation::new().with_fact(Fact::Mapped { iova, doorbell });
        match self.iommu.translate(domain, iova) {
            Translated::Unknown => Explanation::new(),
            Translated::Refused => Explanation::stopped(Obstacle::NotMapped { iova }),
            Translated::To(address) if address == doorbell => mapped,
            Translated::To(address) => Explanation::new()
                .with_obstacle(Obstacle::NoDoorbell { address, doorbell: Some(doorbell) }),
        }
    }

    fn describe(&self, device: RequesterId, out: &mut dyn fmt::Write) -> fmt::Result {
        match self.mode_of(device) {
            None => writeln!(out, "iommu: does not serve requester {device}"),
            Some((IommuDomain(number), mode)) => writeln!(out, "iommu: domain {number}, {mode:x?}"),
        }
    }
}

impl<I> fmt::Debug for DoorbellMapping<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DoorbellMapping(..)")
    }
}

/// A bus's change to requester IDs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequesterRule {
    /// No change.
    Same,
    /// The requester ID becomes `base + (requester << shift)`. Some bridges combine their own
    /// number with the function's ID in this way.
    Shifted {
        /// Shift in bits; must be less than 32.
        shift: u8,
        /// Number to add after the shift.
        base: u32,
    },
}

/// A bus's change to message addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressRule {
    /// No change.
    Same,
    /// Devices see memory at its physical address plus this offset (modulo 2^64).
    Offset(u64),
    /// A window in front of an ITS, with four bytes per sender; the ITS derives the DeviceID from
    /// the address (Socionext Synquacer's pre-ITS). A device writes its EventID to `window + 4 *
    /// DeviceID`. A device can also write to another DeviceID's word, so devices behind the window
    /// are not isolated.
    Window {
        /// Address of the first byte.
        window: u64,
        /// Number of DeviceIDs that fit in the window.
        devices: u32,
    },
}

/// A bus with quirks that controllers and endpoints do not see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShimLayer {
    name: &'static str,
    requester: RequesterRule,
    address: AddressRule,
    address_bits: u8,
    data_bits: u8,
    blocks: Capabilities,
}

impl ShimLayer {
    /// Creates a bus with no quirks.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            requester: RequesterRule::Same,
            address: AddressRule::Same,
            address_bits: 64,
            data_bits: 32,
            blocks: Capabilities::NONE,
        }
    }

    /// Sets how the bus changes requester IDs.
    pub const fn with_requesters(self, requester: RequesterRule) -> Self {
        Self { requester, ..self }
    }

    /// Sets how the bus changes message addresses.
    pub const fn with_addresses(self, address: AddressRule) -> Self {
        Self { address, ..self }
    }

    /// Sets the number of address and data bits that the bus carries. The bus drops all higher
    /// bits.
    pub const fn with_widths(self, address_bits: u8, data_bits: u8) -> Self {
        Self { address_bits, data_bits, ..self }
    }

    /// Blocks capabilities of the levels below.
    pub const fn with_blocks(self, blocks: Capabilities) -> Self {
        Self { blocks, ..self }
    }

    fn error(&self, device: RequesterId, reason: &'static str) -> MsiError {
        MsiError::Bus { level: self.name, device, reason }
    }

    fn map(&self, device: RequesterId, address: u64) -> Result<u64, MsiError> {
        match self.address {
            AddressRule::Same => Ok(address),
            AddressRule::Offset(offset) => Ok(address.wrapping_add(offset)),
            AddressRule::Window { window, devices } => {
                let id = self.requester(device)?.get();
                let target = window.checked_add(u64::from(id) * 4).filter(|_| id < devices);
                target.ok_or(self.error(device, "its DeviceID is outside the window"))
            }
        }
    }
}

impl Layer for ShimLayer {
    fn tier(&self) -> Tier {
        let relieves = match self.address {
            AddressRule::Same => Properties::NONE,
            AddressRule::Offset(_) | AddressRule::Window { .. } => {
                Properties::NONE.with(Property::WideAddress)
            }
        };
        Tier::new(self.name).with_blocks(self.blocks).with_relieves(relieves)
    }

    fn requester(&self, device: RequesterId) -> Result<RequesterId, MsiError> {
        let RequesterRule::Shifted { shift, base } = self.requester else { return Ok(device) };
        let shifted = u64::from(device.get()).checked_shl(shift.into()).filter(|_| shift < 32);
        let sum = shifted.and_then(|shifted| u32::try_from(shifted + u64::from(base)).ok());
        sum.map(RequesterId::new)
            .ok_or(self.error(device, "its shifted number does not fit 32 bits"))
    }

    fn fit(&self, fit: Fit) -> Fit {
        // If the layer changes addresses, the result is not known yet; `hold` checks it.
        let (address_bits, rewrite) = match self.address {
            AddressRule::Same => (fit.address_bits.min(self.address_bits), fit.rewrite),
            AddressRule::Offset(_) | AddressRule::Window { .. } => (64, unaddressed(fit.rewrite)),
        };
        Fit::new(rewrite)
            .with_address_bits(address_bits)
            .with_data_bits(fit.data_bits.min(self.data_bits))
    }

    fn hold(&self, device: RequesterId, below: MsiMessage, _: Fit) -> Result<MsiMessage, MsiError> {
        let message = MsiMessage { address: self.map(device, below.address)?, ..below };
        let carried = Fit::new(Rewrite::Masked)
            .with_address_bits(self.address_bits)
            .with_data_bits(self.data_bits);
        carried.check(message)?;
        Ok(message)
    }

    fn isolation(
        &self,
        _: RequesterId,
        below: Isolation,
        _: &dyn Fn(Granule) -> DoorbellPage,
    ) -> Isolation {
        match self.address {
            AddressRule::Window { .. } => {
                Isolation::NotIsolated(NotIsolated::SharedDoorbell(self.name))
            }
            AddressRule::Same | AddressRule::Offset(_) => below,
        }
    }

    fn describe(&self, device: RequesterId, out: &mut dyn fmt::Write) -> fmt::Result {
        write!(out, "{}: requester {device}, below ", self.name)?;
        match self.requester(device) {
            Ok(seen) => writeln!(out, "{seen}"),
            Err(_) => writeln!(out, "none"),
        }
    }
}
