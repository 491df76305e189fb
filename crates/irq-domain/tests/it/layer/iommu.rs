//! IOMMUs: mapped, nested and reserved doorbells, and isolation.

use super::*;
use msi_types::explain::{Fact, Obstacle};

#[test]
fn a_doorbell_page_is_mapped_once_per_domain() {
    for granule in [Granule::Size4K, Granule::Size16K, Granule::Size64K] {
        for (kind, pages) in [(Addressing::Stays, 1), (Addressing::NamesCpu, 4)] {
            let (machine, translation, parent) = translated(kind, DoorbellMode::Mapped(granule));
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
fn devices_of_one_domain_share_its_pages() {
    let (machine, translation, parent) = translated(Addressing::Stays, MAPPED);
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
fn a_doorbell_in_the_bridge_is_not_mapped() {
    let machine = Machine::new(Addressing::Stays);
    *machine.controller.page.lock().unwrap() = DoorbellPage::InBridge;
    let translation = Translation::new(MAPPED);
    let parent = iommu(&machine, &translation);
    let (_, device) = behind(&machine, &parent, &translation, DEVICE);
    device.allocate(Shape::Independent, 2..=2).unwrap();
    let without = machine.attach(&machine.store(StoreKind::MSIX));
    without.allocate(Shape::Independent, 1..=1).unwrap();
    let address = |device: &MsiDevice| device.message(0).map(|message| message.address);
    assert_eq!(address(&device), address(&without));
    drop(device);
    assert_eq!((translation.pages(), translation.maps.load(Relaxed)), (0, 0));
}

#[test]
fn both_doorbells_are_mapped_during_a_rewrite() {
    let setup = one_vector(Addressing::NamesCpu, MAPPED);
    let seen = Arc::new(AtomicUsize::new(0));
    let (note, translation) = (seen.clone(), setup.translation.clone());
    let hook = move || note.store(translation.pages(), Relaxed);
    *setup.store.meanwhile.lock().unwrap() = Some(Hook(Box::new(hook)));
    setup.handle.set_affinity(Cpu::new(2)).unwrap();
    assert_eq!((seen.load(Relaxed), setup.translation.pages()), (2, 1));
    setup.arrives();
}

#[test]
fn a_move_to_an_unmappable_doorbell_is_refused() {
    let setup = one_vector(Addressing::NamesCpu, MAPPED);
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
fn a_failed_move_unmaps_its_new_doorbell() {
    let setup = one_vector(Addressing::NamesCpu, MAPPED);
    setup.store.fail_in.store(0, Relaxed);
    setup.handle.set_affinity(Cpu::new(2)).unwrap_err();
    assert_eq!(setup.translation.pages(), 1);
    setup.arrives();
}

#[test]
fn a_move_to_the_same_cpu_maps_nothing() {
    let setup = one_vector(Addressing::NamesCpu, MAPPED);
    setup.handle.set_affinity(setup.handle.effective_affinity()).unwrap();
    assert_eq!(setup.translation.maps.load(Relaxed), 1);
    setup.arrives();
    drop(setup.device);
    assert_eq!(setup.translation.pages(), 0);
}

#[test]
fn an_unmappable_doorbell_fails_the_allocation() {
    let (machine, translation, parent) = translated(Addressing::NamesCpu, MAPPED);
    let (_, device) = behind(&machine, &parent, &translation, DEVICE);
    translation.fail_in.store(2, Relaxed);
    let refused = device.allocate(Shape::Independent, 8..=8);
    assert!(matches!(refusal(refused), MsiError::Unmapped { .. }));
    assert_eq!((translation.pages(), machine.controller.vectors_in_use()), (0, 0));
}

#[test]
fn an_untranslated_device_stores_the_doorbell() {
    for (requester, mode) in [
        (DEVICE, DoorbellMode::Identity),
        (RequesterId::pci(9, 0, 0), MAPPED),
        (DEVICE, DoorbellMode::Reserved { base: 0x0809_0000, length: 0x1_0000 }),
    ] {
        let (machine, translation, parent) = translated(Addressing::Stays, mode);
        let (_, device) = behind(&machine, &parent, &translation, requester);
        device.allocate_at(&[0]).unwrap();
        assert_eq!(device.message(0).unwrap().address, 0x0809_0040);
        assert_eq!(translation.pages(), 0);
    }
}

#[test]
fn a_doorbell_outside_the_region_is_refused() {
    let (machine, translation, parent) = translated(
        Addressing::Stays,
        DoorbellMode::Reserved { base: 0xfee0_0000, length: 0x10_0000 },
    );
    let (_, device) = behind(&machine, &parent, &translation, DEVICE);
    let refused = device.allocate_at(&[0]);
    let error = refusal(refused);
    assert!(matches!(error, MsiError::Unmapped { device: DEVICE, address: 0x0809_0040, .. }));
}

const NESTED: DoorbellMode =
    DoorbellMode::Nested { granule: Granule::Size4K, stored: 0x1234_5040, doorbell: 0x0900_0040 };

#[test]
fn nested_devices_store_the_guests_address() {
    let setup = one_vector(Addressing::Stays, NESTED);
    assert_eq!(setup.device.message(0).unwrap().address, 0x1234_5040);
    let mapped = BTreeMap::from([((10, 0x0900_0000), 0x0809_0000)]);
    assert_eq!(*setup.translation.mapped.lock().unwrap(), mapped);
    setup.arrives();
}

#[test]
fn a_move_to_another_doorbell_under_nested_translation_is_refused() {
    let setup = one_vector(Addressing::NamesCpu, NESTED);
    let refused = setup.handle.set_affinity(Cpu::new(1));
    assert!(matches!(refused, Err(MoveError::Controller(MsiError::Unmapped { .. }))));
    setup.arrives();
}

#[test]
fn a_doorbell_above_4_gib_is_mapped_within_reach_of_a_32_bit_endpoint() {
    let (machine, _, parent) = translated(Addressing::NamesCpuFarApart, MAPPED);
    // Only the doorbell of CPU 0 is below 4 GiB.
    machine.interrupts.offline(Cpu::new(0)).unwrap();
    let narrow = machine.store(StoreKind { address_bits: 32, ..StoreKind::MSIX });
    let device = attach(&machine, &parent, DEVICE, &narrow).unwrap();
    device.allocate(Shape::Independent, 8..=8).unwrap();
}

#[test]
fn an_iommu_lifts_the_address_limit_of_narrow_endpoints() {
    let machine = Machine::new(Addressing::Stays);
    let wide = Properties::NONE.with(Property::WideAddress);
    let tier = Tier::new("mock").with_provides(Capabilities::ALL).with_requires(wide);
    *machine.controller.tier.lock().unwrap() = tier;
    let parent = iommu(&machine, &Translation::new(MAPPED));
    let narrow = StoreKind { address_bits: 32, group: false, ..StoreKind::MSI };
    let device = attach(&machine, &parent, DEVICE, &machine.store(narrow)).unwrap();
    device.allocate_at(&[0]).unwrap();
    // The layer chooses the address, and checks the endpoint's limits itself.
    let below = Fit::new(Rewrite::AddressOnly);
    assert_eq!(*machine.controller.fit.lock().unwrap(), Some(below));
}

#[test]
fn an_iova_constraint_admits_only_matching_addresses() {
    let narrow = IovaConstraint::Within { address_bits: 32 };
    assert!(narrow.admits(0xffff_f000) && !narrow.admits(0x1_0000_0000));
    assert!(IovaConstraint::Within { address_bits: 64 }.admits(u64::MAX));
    assert!(
        IovaConstraint::At(0x1000).admits(0x1000) && !IovaConstraint::At(0x1000).admits(0x2000)
    );
}

#[test]
fn a_nested_doorbell_with_another_page_offset_is_refused() {
    let granule = Granule::Size4K;
    let mode = DoorbellMode::Nested { granule, stored: 0x1234_5080, doorbell: 0x0900_0080 };
    let (machine, translation, parent) = translated(Addressing::Stays, mode);
    let (_, device) = behind(&machine, &parent, &translation, DEVICE);
    let refused = device.allocate_at(&[0]);
    assert!(matches!(refusal(refused), MsiError::Unmapped { .. }));
    assert_eq!(translation.pages(), 0);
}

#[test]
fn a_reserved_region_ends_at_its_length() {
    for (length, lies_inside) in [(0x40, false), (0x41, true)] {
        let (machine, translation, parent) =
            translated(Addressing::Stays, DoorbellMode::Reserved { base: 0x0809_0000, length });
        let (_, device) = behind(&machine, &parent, &translation, DEVICE);
        assert_eq!(device.allocate_at(&[0]).is_ok(), lies_inside, "{length:#x}");
    }
}

/// Requests one masked vector on CPU 0.
fn one() -> BlockRequest {
    let request = BlockRequest::new(NonZeroU16::MIN, Fit::new(Rewrite::Masked), Cpu::new(0));
    request.with_shape(Shape::Independent).with_initially(Initially::Masked)
}

#[test]
fn composing_a_message_again_releases_the_previous_page() {
    let (_machine, translation, parent) = translated(Addressing::Stays, MAPPED);
    let device = parent.attach(DEVICE, 2).unwrap();
    let [edge, level] = [(); 2].map(|()| parent.allocate(&device, &one()).unwrap());
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
fn a_requester_that_cannot_be_translated_is_not_isolated() {
    let machine = Machine::new(Addressing::Stays);
    *machine.controller.isolation.lock().unwrap() = Isolation::Isolated(IsolatingMechanism::Its);
    let rule = RequesterRule::Shifted { shift: 0, base: u32::MAX };
    let layer = ShimLayer::new("bridge").with_requesters(rule);
    let parent = stack(&machine, &Translation::new(MAPPED), layer);
    assert_eq!(parent.isolation(DEVICE), Isolation::NotIsolated(NotIsolated::NoController));
    assert_eq!(parent.dma_isolation(DEVICE), DmaIsolation::NotIsolated(NotDmaIsolated::NoIommu));
}

#[test]
fn an_iommu_in_identity_mode_leaves_dma_isolation_to_the_next_iommu() {
    let machine = Machine::new(Addressing::Stays);
    let below = iommu(&machine, &Translation::new(MAPPED));
    let layer =
        DoorbellMapping::new(Driver(Translation::new(DoorbellMode::Identity)), Arc::new(Kernel));
    let parent = LayeredParent::new(layer, below, Arc::new(Kernel));
    assert_eq!(parent.dma_isolation(DEVICE), DmaIsolation::Isolated);
}

#[test]
fn endpoints_of_two_widths_share_a_domain() {
    let narrow = StoreKind { address_bits: 32, ..StoreKind::MSIX };
    for (kinds, pages) in [([StoreKind::MSIX, narrow], 2), ([narrow, StoreKind::MSIX], 1)] {
        let (machine, translation, parent) = translated(Addressing::Stays, MAPPED);
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
fn moves_keep_the_address_of_a_narrow_endpoint_within_its_reach() {
    let setup = one_vector(Addressing::NamesCpuFarApart, MAPPED);
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
fn a_failed_level_compose_unmaps_both_doorbells() {
    let (_machine, translation, parent) = translated(Addressing::Stays, MAPPED);
    let device = parent.attach(DEVICE, 1).unwrap();
    let block = parent.allocate(&device, &one()).unwrap();
    translation.fail_in.store(1, Relaxed);
    parent.compose_level(&block, 0).unwrap_err();
    assert_eq!(translation.pages(), 0);
    parent.compose_level(&block, 0).unwrap();
    assert_eq!(translation.pages(), 2);
    parent.release(device, &mut std::iter::once(block));
    assert_eq!(translation.pages(), 0);
}

#[test]
fn other_registers_in_the_doorbell_page_break_isolation() {
    let isolated = Isolation::Isolated(IsolatingMechanism::Its);
    let not = Isolation::NotIsolated;
    let (controls, beside) =
        (DoorbellPage::HoldsControls("its"), not(NotIsolated::DoorbellPageHoldsControls("its")));
    for (mode, page, expected) in [
        (MAPPED, DoorbellPage::Alone, isolated),
        (MAPPED, controls, beside),
        (MAPPED, DoorbellPage::Unknown, not(NotIsolated::DoorbellPageUnknown)),
        (NESTED, controls, beside),
        (DoorbellMode::Identity, DoorbellPage::Alone, isolated),
        (DoorbellMode::Reserved { base: 0, length: 0x1000 }, DoorbellPage::Unknown, isolated),
    ] {
        let machine = Machine::new(Addressing::Stays);
        *machine.controller.isolation.lock().unwrap() = isolated;
        *machine.controller.page.lock().unwrap() = page;
        let parent = iommu(&machine, &Translation::new(mode));
        assert_eq!(parent.isolation(DEVICE), expected, "{mode:?} {page:?}");
    }
}

#[test]
fn a_translating_iommu_isolates_dma() {
    let no = DmaIsolation::NotIsolated;
    let reserved = DoorbellMode::Reserved { base: 0, length: 0x1000 };
    for (mode, expected) in [
        (MAPPED, DmaIsolation::Isolated),
        (NESTED, DmaIsolation::Isolated),
        (reserved, DmaIsolation::Isolated),
        (DoorbellMode::Identity, no(NotDmaIsolated::Identity)),
    ] {
        let machine = Machine::new(Addressing::Stays);
        let parent = iommu(&machine, &Translation::new(mode));
        assert_eq!(parent.dma_isolation(DEVICE), expected, "{mode:?}");
        assert_eq!(machine.controller.dma_isolation(DEVICE), no(NotDmaIsolated::NoIommu));
    }
}

#[test]
fn a_device_without_an_iommu_is_not_dma_isolated() {
    let machine = Machine::new(Addressing::Stays);
    *machine.controller.isolation.lock().unwrap() = Isolation::Isolated(IsolatingMechanism::Its);
    let parent = iommu(&machine, &Translation::new(MAPPED));
    let unserved = RequesterId::pci(0xff, 0, 0);
    assert_eq!(parent.dma_isolation(unserved), DmaIsolation::NotIsolated(NotDmaIsolated::NoIommu));
    let interrupts = InterruptIsolated::prove(&*parent, unserved).unwrap();
    assert_eq!(interrupts.mechanism(), IsolatingMechanism::Its);
    assert_eq!(DmaIsolated::prove(&*parent, unserved).err(), Some(NotDmaIsolated::NoIommu));
}

#[test]
fn a_doorbell_mapping_does_not_isolate_a_shared_doorbell() {
    let machine = Machine::new(Addressing::Stays);
    let parent = iommu(&machine, &Translation::new(MAPPED));
    let shared = NotIsolated::SharedDoorbell("mock");
    assert_eq!(parent.isolation(DEVICE), Isolation::NotIsolated(shared));
}

#[test]
fn explain_reports_a_missing_or_wrong_doorbell_mapping() {
    let setup = one_vector(Addressing::Stays, MAPPED);
    let explain = || setup.machine.interrupts.explain(setup.handle.irq()).unwrap();
    let (iova, page) = {
        let mapped = setup.translation.mapped.lock().unwrap();
        let ((_, at), page) = mapped.first_key_value().unwrap();
        (at | 0x40, *page)
    };
    let doorbell = page | 0x40;
    assert!(explain().facts().any(|fact| fact == Fact::Mapped { iova, doorbell }));
    assert_eq!(explain().obstacle(), None);
    *setup.translation.mapped.lock().unwrap().first_entry().unwrap().get_mut() = 0x7000;
    let other = Obstacle::NoDoorbell { address: 0x7040, doorbell: Some(doorbell) };
    assert_eq!(explain().obstacle(), Some(other));
    let removed = setup.translation.mapped.lock().unwrap().pop_first().unwrap();
    assert_eq!(explain().obstacle(), Some(Obstacle::NotMapped { iova }));
    setup.translation.mapped.lock().unwrap().insert(removed.0, page);
    setup.arrives();
}
