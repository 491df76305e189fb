//! Doorbells behind an IOMMU. A device can only reach pages that are mapped for it.

use super::{Layer, unaddressed};
use crate::runtime::Host;
use alloc::sync::Arc;
use core::fmt;
use doorbell_fallible::SortedMap;
use doorbell_fallible::lock::TaskLock;
use msi_types::explain::{Explanation, Fact, Obstacle};
use msi_types::{
    DmaIsolation, DoorbellPage, Fit, Granule, Isolation, MsiError, MsiMessage, NotDmaIsolated,
    NotIsolated, Properties, Property, RequesterId, Tier,
};

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
