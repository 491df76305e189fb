//! An IOMMU, which records each device's domain and the pages that are mapped in each domain.
//!
//! Accesses to unmapped pages are blocked and counted. A region may be reserved
//! for messages, in which case messages to this region pass untranslated, as on x86. A domain is
//! either an identity mapping, or has a translation stage with a granule.

mod translator;

use crate::lock::lock;
use gic_firmware::Region;
use irq_domain::layer::{DoorbellMode, Iommu as Driver, IommuDomain, IovaConstraint, Translated};
use msi_types::{Delivery, Granule, MsiMessage, RequesterId, SignalMsi};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Page size for devices with a separate domain.
pub const GRANULE: Granule = Granule::Size4K;
/// Offset from a device's number to the number of its separate domain.
const OWN: u32 = 1 << 31;
/// The addresses at which the driver maps its first doorbell pages: one for devices with 32 address
/// bits, and one for all other devices.
const NARROW: u64 = 0x0800_0000;
const WIDE: u64 = 0x20_0800_0000;

/// The pages that a translation stage maps, by input address.
#[derive(Clone, Debug)]
struct Stage {
    granule: Granule,
    pages: BTreeMap<u64, u64>,
}

impl Stage {
    const fn new(granule: Granule) -> Self {
        Self { granule, pages: BTreeMap::new() }
    }

    fn translate(&self, address: u64) -> Option<u64> {
        let page = self.pages.get(&self.granule.page(address))?;
        Some(page | self.granule.offset(address))
    }
}

/// An address space.
#[derive(Clone, Debug)]
struct AddressSpace {
    mode: DoorbellMode,
    stage: Option<Stage>,
}

impl AddressSpace {
    fn new(mode: DoorbellMode) -> Self {
        let stage = match mode {
            DoorbellMode::Identity => None,
            DoorbellMode::Mapped(granule) => Some(Stage::new(granule)),
            // The unit has no second stage, so that a guest's stage maps nothing.
            DoorbellMode::Reserved { .. } | DoorbellMode::Nested { .. } => {
                Some(Stage::new(Granule::Size4K))
            }
        };
        Self { mode, stage }
    }

    fn translate(&self, address: u64) -> Option<u64> {
        if let DoorbellMode::Reserved { base, length } = self.mode
            && Region::new(base, length).is_some_and(|region| region.contains(address))
        {
            return Some(address);
        }
        self.stage.as_ref().map_or(Some(address), |stage| stage.translate(address))
    }
}

#[derive(Default)]
struct IommuState {
    devices: BTreeMap<RequesterId, IommuDomain>,
    spaces: BTreeMap<IommuDomain, AddressSpace>,
    stopped: u64,
}

impl IommuState {
    fn translate(&self, device: RequesterId, address: u64) -> Option<u64> {
        self.spaces.get(self.devices.get(&device)?)?.translate(address)
    }
}

/// The hardware side of the IOMMU.
pub struct Iommu {
    upstream: Arc<dyn SignalMsi<RequesterId>>,
    state: Mutex<IommuState>,
}

impl Iommu {
    /// Creates an IOMMU in front of `upstream` with no device attached to a domain.
    pub fn new(upstream: Arc<dyn SignalMsi<RequesterId>>) -> Self {
        Self { upstream, state: Mutex::default() }
    }

    /// Creates an empty domain. Replaces any existing domain that has this number.
    pub fn create(&self, domain: IommuDomain, mode: DoorbellMode) {
        lock(&self.state).spaces.insert(domain, AddressSpace::new(mode));
    }

    /// Attaches a device to a domain.
    pub fn attach(&self, device: RequesterId, domain: IommuDomain) {
        lock(&self.state).devices.insert(device, domain);
    }

    /// Maps a page in the device's separate domain: the page that contains `address` is mapped to
    /// the bus page that contains `physical`.
    pub fn map(&self, device: RequesterId, address: u64, physical: u64) {
        let own = IommuDomain(OWN | device.get());
        let mut state = lock(&self.state);
        state.devices.insert(device, own);
        let space = state
            .spaces
            .entry(own)
            .or_insert_with(|| AddressSpace::new(DoorbellMode::Mapped(GRANULE)));
        if let Some(stage) = &mut space.stage {
            stage.pages.insert(GRANULE.page(address), GRANULE.page(physical));
        }
    }

    /// Translates the address of a device's write, and counts the write if it is blocked.
    fn translate_write(&self, device: RequesterId, address: u64) -> Option<u64> {
        let mut state = lock(&self.state);
        let translated = state.translate(device, address);
        state.stopped += u64::from(translated.is_none());
        translated
    }

    /// Returns the number of pages mapped in all domains.
    pub fn pages(&self) -> usize {
        let state = lock(&self.state);
        let stages = state.spaces.values().filter_map(|space| space.stage.as_ref());
        stages.map(|stage| stage.pages.len()).sum()
    }

    /// Returns the number of messages that were blocked.
    pub fn stopped(&self) -> u64 {
        lock(&self.state).stopped
    }
}

impl SignalMsi<RequesterId> for Iommu {
    fn signal_msi(&self, from: RequesterId, message: MsiMessage) -> Delivery {
        match self.translate_write(from, message.address) {
            Some(address) => self.upstream.signal_msi(from, MsiMessage { address, ..message }),
            None => Delivery::Blocked,
        }
    }
}

/// The driver that manages the IOMMU's tables.
#[derive(Clone, Debug)]
pub struct IommuDriver(Arc<Iommu>);

impl IommuDriver {
    /// Takes over management of the IOMMU.
    pub const fn new(unit: Arc<Iommu>) -> Self {
        Self(unit)
    }

    /// Returns the IOMMU.
    pub const fn unit(&self) -> &Arc<Iommu> {
        &self.0
    }
}

impl Driver for IommuDriver {
    fn domain(&self, device: RequesterId) -> Option<IommuDomain> {
        lock(&self.0.state).devices.get(&device).copied()
    }

    fn mode(&self, domain: IommuDomain) -> DoorbellMode {
        // A domain that was never created has no mappings.
        let nowhere = DoorbellMode::Reserved { base: 0, length: 0 };
        lock(&self.0.state).spaces.get(&domain).map_or(nowhere, |space| space.mode)
    }

    fn map(
        &self,
        domain: IommuDomain,
        page: u64,
        constraint: IovaConstraint,
    ) -> Result<u64, &'static str> {
        let mut unit = lock(&self.0.state);
        let stage = unit.spaces.get_mut(&domain).and_then(|space| space.stage.as_mut());
        let stage = stage.ok_or("the domain has no pages")?;
        if stage.granule.offset(page) != 0 {
            return Err("the doorbell's page is not aligned to the granule");
        }
        let at = match constraint {
            IovaConstraint::At(at) => at,
            IovaConstraint::Within { .. } => {
                let mut at = if constraint.admits(WIDE) { WIDE } else { NARROW };
                while stage.pages.contains_key(&at) {
                    at += stage.granule.bytes();
                }
                at
            }
        };
        if !constraint.admits(at) {
            return Err("no page that the device can address is free");
        }
        if stage.pages.contains_key(&at) {
            return Err("the page is already mapped");
        }
        stage.pages.insert(at, page);
        Ok(at)
    }

    fn translate(&self, domain: IommuDomain, address: u64) -> Translated {
        let unit = lock(&self.0.state);
        let translated = unit.spaces.get(&domain).and_then(|space| space.translate(address));
        translated.map_or(Translated::Refused, Translated::To)
    }

    fn unmap(&self, domain: IommuDomain, mapped: u64) {
        let mut unit = lock(&self.0.state);
        let stage = unit.spaces.get_mut(&domain).and_then(|space| space.stage.as_mut());
        let gone = stage.and_then(|stage| stage.pages.remove(&mapped));
        debug_assert!(gone.is_some(), "unmapped a page that is not mapped");
    }
}

msi_types::debug_by!(Iommu as "Iommu", |it| {pages: it.pages(), stopped: it.stopped()});

#[cfg(test)]
mod tests {
    use super::*;

    /// A target that accepts writes to one address only.
    struct Only(u64);
    impl SignalMsi<RequesterId> for Only {
        fn signal_msi(&self, _from: RequesterId, message: MsiMessage) -> Delivery {
            if message.address == self.0 { Delivery::Pending } else { Delivery::NoDoorbell }
        }
    }

    const DEVICE: RequesterId = RequesterId::new(8);
    const DOMAIN: IommuDomain = IommuDomain(1);

    fn unit(mode: DoorbellMode, doorbell: u64) -> Arc<Iommu> {
        let unit = Arc::new(Iommu::new(Arc::new(Only(doorbell))));
        unit.create(DOMAIN, mode);
        unit.attach(DEVICE, DOMAIN);
        unit
    }

    const ANYWHERE: IovaConstraint = IovaConstraint::Within { address_bits: 64 };

    fn driver(unit: &Arc<Iommu>) -> IommuDriver {
        IommuDriver::new(Arc::clone(unit))
    }

    fn write(unit: &Iommu, address: u64) -> Delivery {
        unit.signal_msi(DEVICE, MsiMessage { address, data: 1 })
    }

    #[test]
    fn translation_keeps_the_offset_within_the_page_for_each_granule() {
        for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
            let doorbell = 0x0821_0000 + granule.bytes() - 4;
            let unit = unit(DoorbellMode::Mapped(granule), doorbell);
            let at = driver(&unit).map(DOMAIN, granule.page(doorbell), ANYWHERE).unwrap();
            let iova = at | granule.offset(doorbell);
            assert_eq!(write(&unit, iova), Delivery::Pending);
            assert_eq!(write(&unit, at + granule.bytes()), Delivery::Blocked);
            assert_eq!(driver(&unit).translate(DOMAIN, iova), Translated::To(doorbell));
            assert_eq!(driver(&unit).translate(IommuDomain(7), iova), Translated::Refused);
        }
    }

    #[test]
    fn only_writes_to_the_reserved_region_pass() {
        let unit =
            unit(DoorbellMode::Reserved { base: 0xfee0_0000, length: 0x10_0000 }, 0xfee0_1000);
        assert_eq!(write(&unit, 0xfee0_1000), Delivery::Pending);
        assert_eq!(write(&unit, 0xfef0_0000), Delivery::Blocked);
    }

    #[test]
    fn a_page_mapped_for_one_device_blocks_other_devices() {
        let unit = Iommu::new(Arc::new(Only(0x7040)));
        unit.map(DEVICE, 0x1000, 0x7000);
        assert_eq!(write(&unit, 0x1040), Delivery::Pending);
        let message = MsiMessage { address: 0x1040, data: 1 };
        assert_eq!(unit.signal_msi(RequesterId::new(9), message), Delivery::Blocked);
        assert_eq!(unit.stopped(), 1);
    }

    #[test]
    fn a_page_is_mapped_once_until_it_is_unmapped() {
        let unit = unit(DoorbellMode::Mapped(Granule::Size4K), 0);
        let at = driver(&unit).map(DOMAIN, 0x7000, ANYWHERE).unwrap();
        assert!(driver(&unit).map(DOMAIN, 0x8000, IovaConstraint::At(at)).is_err());
        driver(&unit).unmap(DOMAIN, at);
        assert_eq!((unit.pages(), driver(&unit).map(DOMAIN, 0x8000, ANYWHERE)), (0, Ok(at)));
    }
}
