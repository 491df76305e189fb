//! What a hierarchy offers, what an endpoint needs, and guests.

use crate::mock::{CPUS, Controller, Kernel, Kind, Machine, Store, StoreKind};
use irq_domain::{Config, Interrupts, MsiDevice, MsiDeviceConfig, MsiDeviceError, StoredMessages, World};
use msi_types::{
    Capabilities, Capability, Cpu, Isolated, IsolatingMechanism, Isolation, Mismatch, NotIsolated,
    Properties, Property, RequesterId, Shape, Storage, Tier,
};
use std::num::NonZeroU16;
use std::sync::Arc;

const ALL: Tier = Tier::new("mock").with_provides(Capabilities::ALL);

fn offering(capabilities: Capabilities) -> Machine {
    let machine = Machine::new(Kind::Stays);
    *machine.controller.tier.lock().unwrap() = Tier::new("mock").with_provides(capabilities);
    machine
}

fn missing(capability: Capability) -> MsiDeviceError {
    Mismatch::Missing { capability, tier: "mock" }.into()
}

#[test]
fn a_device_with_its_own_storage_is_refused_where_no_tier_offers_it() {
    let machine = offering(Capabilities::ALL.without(Capability::DeviceStorage));
    let refused = machine.try_attach(&machine.store(StoreKind::SLOW)).err();
    assert_eq!(refused, Some(missing(Capability::DeviceStorage)));
    assert!(
        machine.try_attach(&machine.store(StoreKind { storage: Storage::Bus, ..StoreKind::SLOW })).is_ok()
    );
}

#[test]
fn an_endpoint_that_cannot_mask_at_any_time_needs_a_controller_that_can() {
    let machine = offering(Capabilities::ALL.without(Capability::Masking));
    let refused = machine.try_attach(&machine.store(StoreKind::MSI)).err();
    assert_eq!(refused, Some(missing(Capability::Masking)));
    assert!(machine.try_attach(&machine.store(StoreKind::MSIX)).is_ok());
}

#[test]
fn a_group_where_there_are_none_is_one_vector_or_refused() {
    let machine = offering(Capabilities::ALL.without(Capability::Groups));
    let device = machine.attach(&machine.store(StoreKind::MSI));
    assert_eq!(device.allocate(Shape::AlignedGroup, 2..=8), Err(missing(Capability::Groups)));
    assert_eq!(device.allocate(Shape::AlignedGroup, 1..=8).unwrap().len(), 1);
}

#[test]
fn vectors_are_added_later_only_where_that_is_offered() {
    let machine = offering(Capabilities::ALL.without(Capability::LateAllocation));
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate(Shape::Independent, 2..=2).unwrap();
    assert_eq!(device.allocate_at(&[5]), Err(missing(Capability::LateAllocation)));
    assert_eq!(device.vectors().len(), 2);
}

#[test]
fn an_endpoint_without_a_property_that_a_tier_requires_is_refused() {
    let machine = Machine::new(Kind::Stays);
    let requires = Properties::NONE.with(Property::WideAddress);
    *machine.controller.tier.lock().unwrap() = ALL.with_requires(requires);
    let narrow = StoreKind { address_bits: 32, ..StoreKind::MSIX };
    let refused = machine.try_attach(&machine.store(narrow)).err();
    let mismatch = Mismatch::Required { property: Property::WideAddress, tier: "mock" };
    assert_eq!(refused, Some(mismatch.into()));
    assert_eq!(machine.controller.devices_attached(), 0);
}

fn attach_in(world: World, isolation: Isolation, storage: Storage) -> Result<MsiDevice, MsiDeviceError> {
    let controller = Controller::new(Kind::Stays);
    *controller.isolation.lock().unwrap() = isolation;
    let cpus = NonZeroU16::new(4).unwrap();
    let interrupts = Interrupts::new(Config::new(cpus, Arc::new(Kernel)).with_world(world));
    (1..CPUS).for_each(|cpu| drop(interrupts.cpu_online(Cpu::new(cpu)).unwrap()));
    let store = Store::new(StoreKind { storage, ..StoreKind::MSIX }, &controller);
    let requester = RequesterId::pci(1, 0, 0);
    MsiDevice::attach(&interrupts, MsiDeviceConfig { name: "device", requester, parent: controller, store })
}

const PROOF: Isolation = Isolation::Isolated(Isolated::by(IsolatingMechanism::Its));
const NO_PROOF: Isolation = Isolation::NotIsolated(NotIsolated::SharedDoorbell("mock"));

#[test]
fn a_guest_without_remapping_has_pci_interrupts_but_no_ims_however_isolated() {
    let world = World::Guest(StoredMessages::Trapped);
    assert!(attach_in(world, NO_PROOF, Storage::Bus).is_ok());
    assert_eq!(attach_in(world, PROOF, Storage::Device).err(), Some(MsiDeviceError::GuestStorage));
}

#[test]
fn a_guest_with_remapping_has_ims_if_the_device_is_isolated() {
    let world = World::Guest(StoredMessages::Remapped);
    let device = attach_in(world, PROOF, Storage::Device).unwrap();
    assert_eq!(device.prove_isolated(), Ok(Isolated::by(IsolatingMechanism::Its)));
    let reason = NotIsolated::SharedDoorbell("mock");
    let refused = attach_in(world, NO_PROOF, Storage::Device).err();
    assert_eq!(refused, Some(MsiDeviceError::GuestNotIsolated(reason)));
}

#[test]
fn bare_metal_has_ims_without_proof() {
    let device = attach_in(World::BareMetal, NO_PROOF, Storage::Device).unwrap();
    assert!(device.prove_isolated().is_err());
}
