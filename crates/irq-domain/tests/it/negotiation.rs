//! Negotiation between a hierarchy and an endpoint, on bare metal and in guests.

use crate::mock::{Addressing, Kernel, Machine, StoreKind};
use irq_domain::layer::{Hypervisor, LayeredParent};
use irq_domain::{MessageCopy, MsiDevice, MsiDeviceConfig, MsiDeviceError};
use msi_types::{
    Capabilities, Capability, IsolatingMechanism, Isolation, Mismatch, MsiParent, NotDmaIsolated,
    NotIsolated, Properties, Property, RequesterId, Shape, Storage, Tier,
};
use std::sync::Arc;

const ALL: Tier = Tier::new("mock").with_provides(Capabilities::ALL);

fn offering(capabilities: Capabilities) -> Machine {
    let machine = Machine::new(Addressing::Stays);
    *machine.controller.tier.lock().unwrap() = Tier::new("mock").with_provides(capabilities);
    machine
}

fn missing(capability: Capability) -> MsiDeviceError {
    Mismatch::Missing { capability, tier: "mock" }.into()
}

#[test]
fn an_unmaskable_endpoint_needs_a_masking_parent() {
    let machine = offering(Capabilities::ALL.without(Capability::Masking));
    let refused = machine.try_attach(&machine.store(StoreKind::MSI)).err();
    assert_eq!(refused, Some(missing(Capability::Masking)));
    assert!(machine.try_attach(&machine.store(StoreKind::MSIX)).is_ok());
}

#[test]
fn without_group_support_only_one_vector_is_granted() {
    let machine = offering(Capabilities::ALL.without(Capability::Groups));
    let device = machine.attach(&machine.store(StoreKind::MSI));
    assert_eq!(device.allocate(Shape::AlignedGroup, 2..=8), Err(missing(Capability::Groups)));
    assert_eq!(device.allocate(Shape::AlignedGroup, 1..=8).unwrap().len(), 1);
}

#[test]
fn late_allocation_needs_a_tier_that_offers_it() {
    let machine = offering(Capabilities::ALL.without(Capability::LateAllocation));
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate(Shape::Independent, 2..=2).unwrap();
    assert_eq!(device.allocate_at(&[5]), Err(missing(Capability::LateAllocation)));
    assert_eq!(device.vectors().unwrap().len(), 2);
}

#[test]
fn a_missing_required_property_is_refused() {
    let machine = Machine::new(Addressing::Stays);
    let requires = Properties::NONE.with(Property::WideAddress);
    *machine.controller.tier.lock().unwrap() = ALL.with_requires(requires);
    let narrow = StoreKind { address_bits: 32, ..StoreKind::MSIX };
    let refused = machine.try_attach(&machine.store(narrow)).err();
    let mismatch = Mismatch::Required { property: Property::WideAddress, tier: "mock" };
    assert_eq!(refused, Some(mismatch.into()));
    assert_eq!(machine.controller.devices_attached(), 0);
}

/// Attaches a device with the given storage to a controller that reports the given isolation. If a
/// hypervisor is given, its layer is put over the controller.
fn attach_over(
    hypervisor: Option<Hypervisor>,
    isolation: Isolation,
    storage: Storage,
) -> Result<MsiDevice, MsiDeviceError> {
    attach_to(&Machine::new(Addressing::Stays), hypervisor, isolation, (storage, None))
}

fn attach_to(
    machine: &Machine,
    hypervisor: Option<Hypervisor>,
    isolation: Isolation,
    (storage, copy): (Storage, Option<Arc<MessageCopy>>),
) -> Result<MsiDevice, MsiDeviceError> {
    *machine.controller.isolation.lock().unwrap() = isolation;
    let store = machine.store(StoreKind { storage, ..StoreKind::MSIX });
    let parent: Arc<dyn MsiParent> = match hypervisor {
        Some(hypervisor) => {
            Arc::new(LayeredParent::new(hypervisor, machine.controller.clone(), Arc::new(Kernel)))
        }
        None => machine.controller.clone(),
    };
    let requester = RequesterId::pci(1, 0, 0);
    let config = MsiDeviceConfig::new("device", requester, parent, store);
    let config = copy.into_iter().fold(config, MsiDeviceConfig::with_copy);
    MsiDevice::attach(&machine.interrupts, config)
}

#[test]
fn copied_messages_are_refused_like_device_stored_ones() {
    let machine = Machine::new(Addressing::Stays);
    for hypervisor in [None, Some(Hypervisor::Traps), Some(Hypervisor::Remaps)] {
        for isolation in [PROOF, NO_PROOF] {
            let attach = |stored| attach_to(&machine, hypervisor, isolation, stored).err();
            let copied = attach((Storage::Bus, Some(Arc::new(|_, _| {}))));
            assert_eq!(copied, attach((Storage::Device, None)), "{hypervisor:?}");
        }
    }
}

const PROOF: Isolation = Isolation::Isolated(IsolatingMechanism::InterruptRemapping);
const REASON: NotIsolated = NotIsolated::SharedDoorbell("mock");
const NO_PROOF: Isolation = Isolation::NotIsolated(REASON);

#[test]
fn a_trapping_hypervisor_refuses_device_stored_messages() {
    let traps = Some(Hypervisor::Traps);
    assert!(attach_over(traps, NO_PROOF, Storage::Bus).is_ok());
    let mismatch =
        Mismatch::Missing { capability: Capability::MessageRemapping, tier: "hypervisor" };
    assert_eq!(attach_over(traps, PROOF, Storage::Device).err(), Some(mismatch.into()));
}

#[test]
fn a_remapping_hypervisor_needs_isolation() {
    let remaps = Some(Hypervisor::Remaps);
    let device = attach_over(remaps, PROOF, Storage::Device).unwrap();
    let proof = device.prove_isolated().unwrap();
    assert_eq!(proof.mechanism(), IsolatingMechanism::InterruptRemapping);
    let refused = attach_over(remaps, NO_PROOF, Storage::Device).err();
    assert_eq!(refused, Some(MsiDeviceError::NotIsolated { tier: "hypervisor", reason: REASON }));
    assert!(attach_over(remaps, NO_PROOF, Storage::Bus).is_ok());
}

#[test]
fn emulated_devices_work_in_a_guest() {
    for hypervisor in [Hypervisor::Traps, Hypervisor::Remaps] {
        let device = attach_over(Some(hypervisor), NO_PROOF, Storage::Emulated).unwrap();
        assert_eq!(device.allocate(Shape::Independent, 1..=1).unwrap().len(), 1);
    }
}

#[test]
fn bare_metal_allows_ims_without_proof_of_isolation() {
    let device = attach_over(None, NO_PROOF, Storage::Device).unwrap();
    assert!(device.prove_isolated().is_err());
    assert_eq!(device.prove_dma_isolated().err(), Some(NotDmaIsolated::NoIommu));
}
