//! Buses with quirks and IOMMUs between a device and its controller.

use crate::mock::{
    Bus, Hook, Hotplug as _, Kernel, Kind, Machine, Store, StoreKind, assert_task, count_down,
    judge, lock,
};
use irq_domain::layer::{
    AddressRule, DoorbellMapping, DoorbellMode, Iommu, IommuDomain, Over, Placement, RequesterRule,
    ShimLayer,
};
use irq_domain::{IrqHandle, MoveError, MsiDevice, MsiDeviceConfig, MsiDeviceError};
use msi_types::{
    BlockRequest, Capabilities, Capability, Cpu, DmaIsolated, DmaIsolation, DoorbellPage, Fit,
    Granule, Initially, InterruptIsolated, IsolatingMechanism, Isolation, Mismatch, MoveOutcome,
    MsiError, MsiParent, NotDmaIsolated, NotIsolated, Properties, Property, RequesterId, Rewrite,
    Shape, Storage, Tier,
};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

const DEVICE: RequesterId = RequesterId::pci(1, 0, 0);

/// An IOMMU; panics where a real one would fault, or lose a mapping.
pub(crate) struct Translation {
    mode: DoorbellMode,
    /// Devices with this bus number have this domain; the others are not served.
    domains: BTreeMap<u8, u32>,
    fail_in: AtomicUsize,
    /// By domain and page as the device sees it.
    mapped: Mutex<BTreeMap<(u32, u64), u64>>,
    maps: AtomicUsize,
}

impl Translation {
    pub(crate) fn new(mode: DoorbellMode) -> Arc<Self> {
        Arc::new(Self {
            mode,
            domains: BTreeMap::from([(1, 10), (2, 10), (3, 30)]),
            fail_in: AtomicUsize::new(usize::MAX),
            mapped: Mutex::default(),
            maps: AtomicUsize::new(0),
        })
    }

    fn granule(&self) -> Granule {
        match self.mode {
            DoorbellMode::Mapped(granule) | DoorbellMode::Nested { granule, .. } => granule,
            _ => Granule::Size4K,
        }
    }

    /// Translates a write of a device.
    fn translate(&self, device: RequesterId, address: u64) -> u64 {
        let Some(domain) = self.domains.get(&device.pci_bus()) else { return address };
        let granule = self.granule();
        let seen = match self.mode {
            DoorbellMode::Identity | DoorbellMode::Reserved { .. } => return address,
            DoorbellMode::Mapped(_) => address,
            DoorbellMode::Nested { stored, doorbell, .. } => {
                assert_eq!(address, stored, "not what the guest had stored");
                doorbell
            }
        };
        let mapped = self.mapped.lock().unwrap();
        let page = mapped.get(&(*domain, granule.page(seen)));
        page.unwrap_or_else(|| panic!("{device} faults at {address:#x}")) | granule.offset(seen)
    }

    pub(crate) fn pages(&self) -> usize {
        self.mapped.lock().unwrap().len()
    }
}

struct Driver(Arc<Translation>);

impl Iommu for Driver {
    fn domain(&self, device: RequesterId) -> Option<IommuDomain> {
        self.0.domains.get(&device.pci_bus()).copied().map(IommuDomain)
    }

    fn mode(&self, _: IommuDomain) -> DoorbellMode {
        self.0.mode
    }

    fn map(
        &self,
        domain: IommuDomain,
        page: u64,
        placement: Placement,
    ) -> Result<u64, &'static str> {
        assert_task();
        let granule = self.0.granule();
        assert_eq!(granule.offset(page), 0, "not a page");
        if !count_down(&self.0.fail_in) {
            return Err("injected");
        }
        let count = self.0.maps.fetch_add(1, Relaxed) as u64;
        // As high as the endpoint can address: what others cannot, they need not.
        let at = match placement {
            Placement::Within { address_bits: 64 } => 0x10_0000_0000 + count * granule.bytes(),
            Placement::Within { address_bits } => {
                (1 << (address_bits - 1)) + count * granule.bytes()
            }
            Placement::At(at) => at,
        };
        let mut mapped = lock(&self.0.mapped);
        let twice = mapped.iter().any(|((other, seen), known)| {
            *other == domain.0 && *known == page && placement.admits(*seen)
        });
        assert!(!twice, "mapped twice");
        assert!(mapped.insert((domain.0, at), page).is_none(), "mapped over another page");
        Ok(at)
    }

    fn unmap(&self, domain: IommuDomain, mapped: u64) {
        assert_task();
        judge(lock(&self.0.mapped).remove(&(domain.0, mapped)).is_some(), "unmapped twice");
    }
}

pub(crate) fn iommu(machine: &Machine, translation: &Arc<Translation>) -> Arc<dyn MsiParent> {
    let layer = DoorbellMapping::new(Driver(translation.clone()), Arc::new(Kernel));
    Arc::new(Over::new(layer, machine.controller.clone(), Arc::new(Kernel)))
}

fn shim(machine: &Machine, layer: ShimLayer) -> Arc<dyn MsiParent> {
    Arc::new(Over::new(layer, machine.controller.clone(), Arc::new(Kernel)))
}

fn attach(
    machine: &Machine,
    parent: &Arc<dyn MsiParent>,
    requester: RequesterId,
    store: &Arc<Store>,
) -> Result<MsiDevice, MsiDeviceError> {
    let config =
        MsiDeviceConfig { name: "device", requester, parent: parent.clone(), store: store.clone() };
    MsiDevice::attach(&machine.interrupts, config)
}

/// A device whose writes the IOMMU translates.
fn behind(
    machine: &Machine,
    parent: &Arc<dyn MsiParent>,
    translation: &Arc<Translation>,
    requester: RequesterId,
) -> (Arc<Store>, MsiDevice) {
    let store = machine.store(StoreKind::MSIX);
    let translation = translation.clone();
    *store.bus.lock().unwrap() = Some(Bus(Box::new(move |message| msi_types::MsiMessage {
        address: translation.translate(requester, message.address),
        ..message
    })));
    let device = attach(machine, parent, requester, &store).unwrap();
    (store, device)
}

/// One vector on CPU 0 behind an IOMMU.
struct Setup {
    machine: Machine,
    translation: Arc<Translation>,
    store: Arc<Store>,
    handle: IrqHandle,
    device: MsiDevice,
}

fn one_vector(kind: Kind, mode: DoorbellMode) -> Setup {
    let machine = Machine::new(kind);
    let translation = Translation::new(mode);
    let parent = iommu(&machine, &translation);
    let (store, device) = behind(&machine, &parent, &translation, DEVICE);
    device.allocate_at(&[0]).unwrap();
    let handle = device.request(0, "test", |_| {}).unwrap();
    Setup { machine, translation, store, handle, device }
}

impl Setup {
    fn arrives(&self) {
        let before = self.handle.count();
        self.store.fire(0);
        self.machine.settle();
        assert_eq!(self.handle.count(), before + 1);
    }
}

const MAPPED: DoorbellMode = DoorbellMode::Mapped(Granule::Size4K);

#[test]
fn each_page_of_doorbells_is_mapped_once_and_unmapped_with_its_last_user() {
    for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
        for (kind, pages) in [(Kind::Stays, 1), (Kind::NamesCpu, 4)] {
            let machine = Machine::new(kind);
            let translation = Translation::new(DoorbellMode::Mapped(granule));
            let parent = iommu(&machine, &translation);
            let (store, device) = behind(&machine, &parent, &translation, DEVICE);
            device.allocate(Shape::Independent, 8..=8).unwrap();
            let handles: Vec<_> =
                (0..8).map(|slot| device.request(slot, "test", |_| {}).unwrap()).collect();
            (0..8).for_each(|slot| store.fire(slot));
            machine.settle();
            assert!(handles.iter().all(|handle| handle.count() == 1));
            assert_eq!((translation.pages(), translation.maps.load(Relaxed)), (pages, pages));
            drop(device);
            assert_eq!(translation.pages(), 0, "{kind:?} {granule:?}");
        }
    }
}

#[test]
fn devices_of_one_domain_share_its_pages_and_others_have_their_own() {
    let machine = Machine::new(Kind::Stays);
    let translation = Translation::new(MAPPED);
    let parent = iommu(&machine, &translation);
    let devices = [1, 2, 3].map(|bus| {
        let (_, device) = behind(&machine, &parent, &translation, RequesterId::pci(bus, 0, 0));
        device.allocate_at(&[0]).unwrap();
        device
    });
    assert_eq!(translation.pages(), 2);
    let [first, second, third] = devices;
    drop((first, third));
    assert_eq!(translation.pages(), 1);
    drop(second);
    assert_eq!(translation.pages(), 0);
}

#[test]
fn the_new_doorbell_is_mapped_before_the_endpoint_is_rewritten_and_the_old_one_until_after() {
    let setup = one_vector(Kind::NamesCpu, MAPPED);
    let seen = Arc::new(AtomicUsize::new(0));
    let (note, translation) = (seen.clone(), setup.translation.clone());
    let hook = move || note.store(translation.pages(), Relaxed);
    *setup.store.meanwhile.lock().unwrap() = Some(Hook(Box::new(hook)));
    setup.handle.set_affinity(Cpu::new(2)).unwrap();
    assert_eq!((seen.load(Relaxed), setup.translation.pages()), (2, 1));
    setup.arrives();
}

#[test]
fn an_interrupt_whose_new_doorbell_cannot_be_mapped_stays_where_it_is() {
    let setup = one_vector(Kind::NamesCpu, MAPPED);
    setup.translation.fail_in.store(0, Relaxed);
    let refused = setup.handle.set_affinity(Cpu::new(2));
    assert!(matches!(
        refused,
        Err(MoveError::Controller(MsiError::Unmapped { device: DEVICE, .. }))
    ));
    assert_eq!(setup.machine.controller.outcomes(), [MoveOutcome::RolledBack]);
    assert_eq!(setup.translation.pages(), 1);
    setup.arrives();
}

#[test]
fn a_doorbell_that_was_mapped_for_a_move_that_failed_is_unmapped() {
    let setup = one_vector(Kind::NamesCpu, MAPPED);
    setup.store.fail_in.store(0, Relaxed);
    setup.handle.set_affinity(Cpu::new(2)).unwrap_err();
    assert_eq!(setup.translation.pages(), 1);
    setup.arrives();
}

#[test]
fn a_move_to_where_it_is_maps_nothing_and_unmaps_nothing() {
    let setup = one_vector(Kind::NamesCpu, MAPPED);
    setup.handle.set_affinity(setup.handle.effective_affinity()).unwrap();
    assert_eq!(setup.translation.maps.load(Relaxed), 1);
    setup.arrives();
    drop(setup.device);
    assert_eq!(setup.translation.pages(), 0);
}

#[test]
fn a_device_whose_doorbell_cannot_be_mapped_gets_nothing() {
    let machine = Machine::new(Kind::NamesCpu);
    let translation = Translation::new(MAPPED);
    let parent = iommu(&machine, &translation);
    let (_, device) = behind(&machine, &parent, &translation, DEVICE);
    translation.fail_in.store(2, Relaxed);
    let refused = device.allocate(Shape::Independent, 8..=8);
    assert!(matches!(refused, Err(MsiDeviceError::Controller(MsiError::Unmapped { .. }))));
    assert_eq!((translation.pages(), machine.controller.vectors_in_use()), (0, 0));
}

#[test]
fn a_device_that_is_not_translated_stores_the_doorbell_itself() {
    for (requester, mode) in [
        (DEVICE, DoorbellMode::Identity),
        (RequesterId::pci(9, 0, 0), MAPPED),
        (DEVICE, DoorbellMode::Reserved { base: 0x0809_0000, length: 0x1_0000 }),
    ] {
        let machine = Machine::new(Kind::Stays);
        let translation = Translation::new(mode);
        let parent = iommu(&machine, &translation);
        let (_, device) = behind(&machine, &parent, &translation, requester);
        device.allocate_at(&[0]).unwrap();
        assert_eq!(device.message(0).unwrap().address, 0x0809_0040);
        assert_eq!(translation.pages(), 0);
    }
}

#[test]
fn a_doorbell_outside_the_reserved_region_is_refused() {
    let machine = Machine::new(Kind::Stays);
    let translation =
        Translation::new(DoorbellMode::Reserved { base: 0xfee0_0000, length: 0x10_0000 });
    let (_, device) = behind(&machine, &iommu(&machine, &translation), &translation, DEVICE);
    let refused = device.allocate_at(&[0]);
    let address = 0x0809_0040;
    assert!(matches!(
        refused,
        Err(MsiDeviceError::Controller(MsiError::Unmapped { device: DEVICE, address: found, .. })) if found == address
    ));
}

const NESTED: DoorbellMode =
    DoorbellMode::Nested { granule: Granule::Size4K, stored: 0x1234_5040, doorbell: 0x0900_0040 };

#[test]
fn under_a_guests_translation_the_guests_address_is_stored_and_leads_to_the_real_doorbell() {
    let setup = one_vector(Kind::Stays, NESTED);
    assert_eq!(setup.device.message(0).unwrap().address, 0x1234_5040);
    assert_eq!(
        *setup.translation.mapped.lock().unwrap(),
        BTreeMap::from([((10, 0x0900_0000), 0x0809_0000)])
    );
    setup.arrives();
}

#[test]
fn under_a_guests_translation_there_is_one_doorbell() {
    let setup = one_vector(Kind::NamesCpu, NESTED);
    let refused = setup.handle.set_affinity(Cpu::new(1));
    assert!(matches!(refused, Err(MoveError::Controller(MsiError::Unmapped { .. }))));
    setup.arrives();
}

#[test]
fn a_doorbell_above_four_gigabytes_is_brought_within_an_endpoints_reach() {
    let machine = Machine::new(Kind::NamesCpuFarApart);
    let translation = Translation::new(MAPPED);
    let parent = iommu(&machine, &translation);
    // Its doorbell alone lies below.
    machine.interrupts.offline(Cpu::new(0)).unwrap();
    let narrow = machine.store(StoreKind { address_bits: 32, ..StoreKind::MSIX });
    assert!(
        attach(&machine, &parent, DEVICE, &narrow)
            .unwrap()
            .allocate(Shape::Independent, 8..=8)
            .is_ok()
    );
}

#[test]
fn an_endpoint_behind_an_iommu_needs_no_wide_address() {
    let machine = Machine::new(Kind::Stays);
    let wide = Properties::NONE.with(Property::WideAddress);
    let tier = Tier::new("mock").with_provides(Capabilities::ALL).with_requires(wide);
    *machine.controller.tier.lock().unwrap() = tier;
    let parent = iommu(&machine, &Translation::new(MAPPED));
    let narrow = StoreKind {
        address_bits: 32,
        rewrite: Rewrite::LowWordOnly,
        group: false,
        ..StoreKind::MSI
    };
    let device = attach(&machine, &parent, DEVICE, &machine.store(narrow)).unwrap();
    device.allocate_at(&[0]).unwrap();
    // The layer chooses the address: how the endpoint changes it is checked there.
    let below = Fit { address_bits: 64, data_bits: 32, rewrite: Rewrite::AddressOnly };
    assert_eq!(*machine.controller.fit.lock().unwrap(), Some(below));
}

#[test]
fn a_page_may_be_mapped_where_its_placement_says() {
    let narrow = Placement::Within { address_bits: 32 };
    assert!(narrow.admits(0xffff_f000) && !narrow.admits(0x1_0000_0000));
    assert!(Placement::Within { address_bits: 64 }.admits(u64::MAX));
    assert!(Placement::At(0x1000).admits(0x1000) && !Placement::At(0x1000).admits(0x2000));
}

#[test]
fn a_guests_doorbell_lies_in_its_page_as_the_real_one() {
    let machine = Machine::new(Kind::Stays);
    let granule = Granule::Size4K;
    let mode = DoorbellMode::Nested { granule, stored: 0x1234_5080, doorbell: 0x0900_0080 };
    let translation = Translation::new(mode);
    let (_, device) = behind(&machine, &iommu(&machine, &translation), &translation, DEVICE);
    let refused = device.allocate_at(&[0]);
    assert!(matches!(refused, Err(MsiDeviceError::Controller(MsiError::Unmapped { .. }))));
    assert_eq!(translation.pages(), 0);
}

#[test]
fn a_reserved_region_ends_at_its_length() {
    for (length, lies_inside) in [(0x40, false), (0x41, true)] {
        let machine = Machine::new(Kind::Stays);
        let translation = Translation::new(DoorbellMode::Reserved { base: 0x0809_0000, length });
        let (_, device) = behind(&machine, &iommu(&machine, &translation), &translation, DEVICE);
        assert_eq!(device.allocate_at(&[0]).is_ok(), lies_inside, "{length:#x}");
    }
}

#[test]
fn a_message_composed_again_lets_the_last_one_go() {
    let machine = Machine::new(Kind::Stays);
    let translation = Translation::new(MAPPED);
    let parent = iommu(&machine, &translation);
    let device = parent.attach(DEVICE, 2).unwrap();
    let fit = Fit { address_bits: 64, data_bits: 32, rewrite: Rewrite::Masked };
    let (count, shape, cpu) = (NonZeroU16::MIN, Shape::Independent, Cpu::new(0));
    let request = BlockRequest { count, shape, fit, cpu, initially: Initially::Masked };
    let [edge, level] = [(); 2].map(|()| parent.allocate(&device, &request).unwrap());
    for _ in 0..2 {
        parent.compose(&edge, 0).unwrap();
        parent.compose_level(&level, 0).unwrap();
    }
    parent.free(&device, level);
    assert_eq!(translation.pages(), 1);
    parent.free(&device, edge);
    assert_eq!(translation.pages(), 0);
    parent.detach(device);
}

#[test]
fn a_requester_that_cannot_be_passed_on_is_not_isolated() {
    let machine = Machine::new(Kind::Stays);
    *machine.controller.isolation.lock().unwrap() = Isolation::Isolated(IsolatingMechanism::Its);
    let rule = RequesterRule::Shifted { shift: 0, base: u32::MAX };
    let layer = ShimLayer::new("bridge").with_requesters(rule);
    let parent = stack(&machine, &Translation::new(MAPPED), layer);
    assert_eq!(parent.isolation(DEVICE), Isolation::NotIsolated(NotIsolated::NoController));
    assert_eq!(parent.dma_isolation(DEVICE), DmaIsolation::NotIsolated(NotDmaIsolated::NoIommu));
}

#[test]
fn an_iommu_that_passes_accesses_leaves_isolation_to_the_next() {
    let machine = Machine::new(Kind::Stays);
    let below = iommu(&machine, &Translation::new(MAPPED));
    let layer =
        DoorbellMapping::new(Driver(Translation::new(DoorbellMode::Identity)), Arc::new(Kernel));
    let parent = Over::new(layer, below, Arc::new(Kernel));
    assert_eq!(parent.dma_isolation(DEVICE), DmaIsolation::Isolated);
}

#[test]
fn endpoints_of_different_widths_share_a_domain_in_any_order() {
    let narrow = StoreKind { address_bits: 32, ..StoreKind::MSIX };
    for (kinds, pages) in [([StoreKind::MSIX, narrow], 2), ([narrow, StoreKind::MSIX], 1)] {
        let machine = Machine::new(Kind::Stays);
        let translation = Translation::new(MAPPED);
        let parent = iommu(&machine, &translation);
        let devices = kinds.map(|kind| {
            let device = attach(&machine, &parent, DEVICE, &machine.store(kind)).unwrap();
            device.allocate(Shape::Independent, 8..=8).unwrap();
            device
        });
        assert_eq!(translation.pages(), pages);
        let [first, second] = devices;
        drop(first);
        assert_eq!(translation.pages(), 1);
        drop(second);
        assert_eq!(translation.pages(), 0);
    }
}

#[test]
fn a_narrow_endpoint_moves_within_its_reach() {
    let setup = one_vector(Kind::NamesCpuFarApart, MAPPED);
    let parent = iommu(&setup.machine, &setup.translation);
    let narrow = setup.machine.store(StoreKind { address_bits: 32, ..StoreKind::MSIX });
    let device = attach(&setup.machine, &parent, RequesterId::pci(3, 0, 0), &narrow).unwrap();
    device.allocate_at(&[0]).unwrap();
    let handle = device.request(0, "test", |_| {}).unwrap();
    for cpu in [3, 1, 2] {
        handle.set_affinity(Cpu::new(cpu)).unwrap();
        assert!(device.message(0).unwrap().address < 1 << 32);
    }
}

#[test]
fn both_messages_of_a_level_are_mapped_or_neither() {
    let machine = Machine::new(Kind::Stays);
    let translation = Translation::new(MAPPED);
    let parent = iommu(&machine, &translation);
    let device = parent.attach(DEVICE, 1).unwrap();
    let fit = Fit { address_bits: 64, data_bits: 32, rewrite: Rewrite::Masked };
    let (count, shape, cpu) = (NonZeroU16::MIN, Shape::Independent, Cpu::new(0));
    let request = BlockRequest { count, shape, fit, cpu, initially: Initially::Masked };
    let block = parent.allocate(&device, &request).unwrap();
    translation.fail_in.store(1, Relaxed);
    parent.compose_level(&block, 0).unwrap_err();
    assert_eq!(translation.pages(), 0);
    parent.compose_level(&block, 0).unwrap();
    assert_eq!(translation.pages(), 2);
    parent.release(device, &mut std::iter::once(block));
    assert_eq!(translation.pages(), 0);
}

#[test]
fn what_shares_the_doorbells_page_decides_over_isolation() {
    let isolated = Isolation::Isolated(IsolatingMechanism::Its);
    let not = Isolation::NotIsolated;
    for (mode, page, expected) in [
        (MAPPED, DoorbellPage::Alone, isolated),
        (
            MAPPED,
            DoorbellPage::HoldsControls("its"),
            not(NotIsolated::DoorbellPageHoldsControls("its")),
        ),
        (MAPPED, DoorbellPage::Unknown, not(NotIsolated::DoorbellPageUnknown)),
        (
            NESTED,
            DoorbellPage::HoldsControls("its"),
            not(NotIsolated::DoorbellPageHoldsControls("its")),
        ),
        (DoorbellMode::Identity, DoorbellPage::Alone, isolated),
        (DoorbellMode::Reserved { base: 0, length: 0x1000 }, DoorbellPage::Unknown, isolated),
    ] {
        let machine = Machine::new(Kind::Stays);
        *machine.controller.isolation.lock().unwrap() = isolated;
        *machine.controller.page.lock().unwrap() = page;
        let parent = iommu(&machine, &Translation::new(mode));
        assert_eq!(parent.isolation(DEVICE), expected, "{mode:?} {page:?}");
    }
}

#[test]
fn an_iommu_that_translates_isolates_memory() {
    let no = DmaIsolation::NotIsolated;
    let reserved = DoorbellMode::Reserved { base: 0, length: 0x1000 };
    for (mode, expected) in [
        (MAPPED, DmaIsolation::Isolated),
        (NESTED, DmaIsolation::Isolated),
        (reserved, DmaIsolation::Isolated),
        (DoorbellMode::Identity, no(NotDmaIsolated::Identity)),
    ] {
        let machine = Machine::new(Kind::Stays);
        let parent = iommu(&machine, &Translation::new(mode));
        assert_eq!(parent.dma_isolation(DEVICE), expected, "{mode:?}");
        assert_eq!(machine.controller.dma_isolation(DEVICE), no(NotDmaIsolated::NoIommu));
    }
}

#[test]
fn a_device_that_its_iommu_does_not_serve_reaches_all_memory() {
    let machine = Machine::new(Kind::Stays);
    *machine.controller.isolation.lock().unwrap() = Isolation::Isolated(IsolatingMechanism::Its);
    let parent = iommu(&machine, &Translation::new(MAPPED));
    let unserved = RequesterId::pci(0xff, 0, 0);
    assert_eq!(parent.dma_isolation(unserved), DmaIsolation::NotIsolated(NotDmaIsolated::NoIommu));
    let interrupts = InterruptIsolated::prove(&*parent, unserved).unwrap();
    assert_eq!(interrupts.mechanism(), IsolatingMechanism::Its);
    assert_eq!(DmaIsolated::prove(&*parent, unserved).err(), Some(NotDmaIsolated::NoIommu));
}

#[test]
fn a_mapping_never_isolates_what_is_not() {
    let machine = Machine::new(Kind::Stays);
    let parent = iommu(&machine, &Translation::new(MAPPED));
    assert_eq!(
        parent.isolation(DEVICE),
        Isolation::NotIsolated(NotIsolated::SharedDoorbell("mock"))
    );
}

#[test]
fn a_bus_with_an_offset_has_devices_store_other_addresses() {
    let machine = Machine::new(Kind::NamesCpu);
    let parent =
        shim(&machine, ShimLayer::new("bridge").with_addresses(AddressRule::Offset(0x1000_0000)));
    let store = machine.store(StoreKind::MSIX);
    let device = attach(&machine, &parent, DEVICE, &store).unwrap();
    let granted = device.allocate_at(&[0]).unwrap();
    let expected = 0x180a_0040 + u64::from(granted[0].cpu.get()) * 0x2_0000;
    assert_eq!(store.message(0).unwrap().address, expected);
    machine.interrupts.set_affinity(granted[0].irq, Cpu::new(3)).unwrap();
    assert_eq!(store.message(0).unwrap().address, 0x180a_0040 + 3 * 0x2_0000);
}

#[test]
fn a_bus_that_shifts_requesters_attaches_what_the_controller_sees() {
    let machine = Machine::new(Kind::Stays);
    let rule = RequesterRule::Shifted { shift: 4, base: 3 };
    let parent = shim(&machine, ShimLayer::new("bridge").with_requesters(rule));
    let _device = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).unwrap();
    assert_eq!(*machine.controller.requesters.lock().unwrap(), [RequesterId::new(0x1003)]);
}

#[test]
fn a_requester_that_does_not_fit_its_bus_is_refused() {
    for rule in [
        RequesterRule::Shifted { shift: 31, base: 0 },
        RequesterRule::Shifted { shift: 64, base: 0 },
        RequesterRule::Shifted { shift: 0, base: u32::MAX },
    ] {
        let machine = Machine::new(Kind::Stays);
        let parent = shim(&machine, ShimLayer::new("bridge").with_requesters(rule));
        let refused = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).err();
        assert!(matches!(
            refused,
            Some(MsiDeviceError::Controller(MsiError::Bus { level: "bridge", device: DEVICE, .. }))
        ));
    }
}

#[test]
fn a_window_in_front_of_an_its_names_the_device_in_the_address_and_isolates_nobody() {
    let machine = Machine::new(Kind::Stays);
    *machine.controller.isolation.lock().unwrap() = Isolation::Isolated(IsolatingMechanism::Its);
    let rule = AddressRule::Window { window: 0x5800_0000, devices: 0x200 };
    let parent = shim(&machine, ShimLayer::new("pre-its").with_addresses(rule));
    let device = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).unwrap();
    device.allocate_at(&[0]).unwrap();
    assert_eq!(device.message(0).unwrap().address, 0x5800_0000 + 0x100 * 4);
    assert_eq!(device.prove_isolated().err(), Some(NotIsolated::SharedDoorbell("pre-its")));
    let far = RequesterId::new(0x200);
    let outside =
        attach(&machine, &parent, far, &machine.store(StoreKind::MSIX)).unwrap().allocate_at(&[0]);
    assert!(matches!(
        outside,
        Err(MsiDeviceError::Controller(MsiError::Bus { level: "pre-its", .. }))
    ));
}

#[test]
fn a_narrow_bus_refuses_what_it_would_truncate() {
    let wide = Machine::new(Kind::NamesCpuFarApart);
    wide.interrupts.offline(Cpu::new(0)).unwrap();
    let parent = shim(&wide, ShimLayer::new("bridge").with_widths(32, 32));
    let device = attach(&wide, &parent, DEVICE, &wide.store(StoreKind::MSIX)).unwrap();
    let refused = device.allocate(Shape::Independent, 8..=8);
    assert!(matches!(
        refused,
        Err(MsiDeviceError::Controller(MsiError::AddressTooWide { bits: 32, .. }))
    ));
    let machine = Machine::new(Kind::Stays);
    let parent = shim(&machine, ShimLayer::new("bridge").with_widths(64, 12));
    let device = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).unwrap();
    let refused = device.allocate_at(&[0]);
    assert!(matches!(
        refused,
        Err(MsiDeviceError::Controller(MsiError::DataTooWide { bits: 12, .. }))
    ));
    assert_eq!(machine.controller.vectors_in_use(), 0);
}

/// A shim over an IOMMU over the controller.
fn stack(
    machine: &Machine,
    translation: &Arc<Translation>,
    layer: ShimLayer,
) -> Arc<dyn MsiParent> {
    Arc::new(Over::new(layer, iommu(machine, translation), Arc::new(Kernel)))
}

#[test]
fn the_tier_that_blocks_is_named_in_a_stack() {
    let machine = Machine::new(Kind::Stays);
    let layer =
        ShimLayer::new("bridge").with_blocks(Capabilities::NONE.with(Capability::DeviceStorage));
    let parent = stack(&machine, &Translation::new(MAPPED), layer);
    let emulated = StoreKind { storage: Storage::Emulated, ..StoreKind::MSIX };
    let refused = attach(&machine, &parent, DEVICE, &machine.store(emulated)).err();
    let missing = Mismatch::Missing { capability: Capability::DeviceStorage, tier: "bridge" };
    assert_eq!(refused, Some(missing.into()));
    let refused = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::SLOW)).err();
    assert_eq!(refused, Some(missing.into()));
    assert_eq!(
        refused.unwrap().to_string(),
        "the endpoint needs messages that the device stores itself, which tier bridge does not offer"
    );
}

#[test]
fn every_level_is_described() {
    let machine = Machine::new(Kind::Stays);
    let parent = stack(&machine, &Translation::new(MAPPED), ShimLayer::new("bridge"));
    let device = attach(&machine, &parent, DEVICE, &machine.store(StoreKind::MSIX)).unwrap();
    let granted = device.allocate_at(&[0]).unwrap();
    let mut text = String::new();
    machine.interrupts.describe(granted[0].irq, &mut text).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.trim().split(':').next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "irq 0",
            "device device",
            "bridge",
            "to address 0x1000000040, data 0x2000 below",
            "iommu",
            "to address 0x8090040, data 0x2000 below",
            "mock controller",
        ]
    );
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { slots: Vec<u16> },
    Free { slot: u16 },
    Move { slot: u16, cpu: u32 },
    Fire { slot: u16 },
    ControllerFails { after: usize },
    StoreFails { after: usize },
    IommuFails { after: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => prop::collection::vec(0..8u16, 1..4).prop_map(|slots| Step::Allocate { slots }),
        2 => (0..8u16).prop_map(|slot| Step::Free { slot }),
        5 => (0..8u16, 0..4u32).prop_map(|(slot, cpu)| Step::Move { slot, cpu }),
        3 => (0..8u16).prop_map(|slot| Step::Fire { slot }),
        1 => (0..8usize).prop_map(|after| Step::ControllerFails { after }),
        1 => (0..8usize).prop_map(|after| Step::StoreFails { after }),
        1 => (0..4usize).prop_map(|after| Step::IommuFails { after }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn exactly_the_pages_that_stored_messages_need_are_mapped(
        kind in prop_oneof![Just(Kind::Stays), Just(Kind::NamesCpu)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let machine = Machine::new(kind);
        let translation = Translation::new(DoorbellMode::Mapped(Granule::Size64K));
        let parent = stack(&machine, &translation, ShimLayer::new("bridge"));
        let (store, device) = behind(&machine, &parent, &translation, DEVICE);
        let mut handles = BTreeMap::new();
        for step in steps {
            match step {
                Step::Allocate { slots } => {
                    for vector in device.allocate_at(&slots).unwrap_or_default() {
                        handles.insert(vector.slot, device.request(vector.slot, "test", |_| {}).unwrap());
                    }
                }
                Step::Free { slot } => {
                    if handles.remove(&slot).is_some() {
                        device.free(slot).unwrap();
                    }
                }
                Step::Move { slot, cpu } => {
                    if let Some(handle) = handles.get(&slot) {
                        let _ = handle.set_affinity(Cpu::new(cpu));
                    }
                }
                Step::Fire { slot } => {
                    if let Some(handle) = handles.get(&slot) {
                        let before = handle.count();
                        store.fire(slot);
                        machine.settle();
                        prop_assert_eq!(handle.count(), before + 1);
                    }
                }
                Step::ControllerFails { after } => machine.controller.fail_in.store(after, Relaxed),
                Step::StoreFails { after } => store.fail_in.store(after, Relaxed),
                Step::IommuFails { after } => translation.fail_in.store(after, Relaxed),
            }
            let stored = handles.keys().map(|slot| store.message(*slot).unwrap().address);
            let needed: BTreeSet<_> = stored.map(|address| (10, Granule::Size64K.page(address))).collect();
            prop_assert_eq!(translation.mapped.lock().unwrap().keys().copied().collect::<BTreeSet<_>>(), needed);
        }
        drop(device);
        prop_assert_eq!(translation.pages(), 0);
        prop_assert_eq!(machine.controller.vectors_in_use(), 0);
    }
}
