//! Tests each reason for a refusal, and a change that resolves it.

use super::*;

fn tried(endpoint: Endpoint, parent: Parent, layer: Layer, world: World) -> Outcome {
    try_cell(Cell { endpoint, parent, layer, world })
}

#[test]
fn x86_multi_msi_needs_interrupt_remapping() {
    let on = |layer| tried(Endpoint::PciMultiMsi, Parent::X86Vector, layer, World::BareMetal);
    assert_refused(&on(Layer::None), "aligned groups of vectors, which tier x86-vector");
    assert_eq!(on(Layer::Remapping), Outcome::Works);
}

const AS_WRITTEN: &str =
    "messages that reach the hardware as this kernel wrote them, which tier hypervisor";

#[test]
fn a_guest_cannot_use_ims_through_a_virtual_its() {
    let on = |endpoint, world| tried(endpoint, Parent::Its, Layer::None, world);
    for world in [World::Guest, World::GuestRemapped] {
        assert_refused(&on(Endpoint::ImsQueue, world), AS_WRITTEN);
        assert_eq!(on(Endpoint::PciMsix, world), Outcome::Works);
    }
    assert_eq!(on(Endpoint::ImsQueue, World::BareMetal), Outcome::Works);
}

#[test]
fn a_guest_cannot_use_ims_through_a_virtual_iommu() {
    for parent in ARM {
        let on = |world| tried(Endpoint::ImsRing, parent, Layer::DoorbellMapping, world);
        assert_refused(&on(World::GuestRemapped), AS_WRITTEN);
        assert_eq!(on(World::BareMetal), Outcome::Works);
    }
}

#[test]
fn guest_ims_on_x86_needs_hardware_remapping() {
    let on = |layer, world| tried(Endpoint::Platform, Parent::X86Vector, layer, world);
    assert_refused(&on(Layer::None, World::GuestRemapped), AS_WRITTEN);
    assert_refused(&on(Layer::DoorbellMapping, World::GuestRemapped), AS_WRITTEN);
    assert_refused(&on(Layer::Remapping, World::Guest), AS_WRITTEN);
    assert_eq!(on(Layer::Remapping, World::GuestRemapped), Outcome::Works);
}

#[test]
fn emulated_device_works_in_every_guest() {
    for world in [World::Guest, World::GuestRemapped] {
        assert_eq!(tried(Endpoint::Emulated, Parent::Its, Layer::None, world), Outcome::Works);
        assert_refused(&tried(Endpoint::Platform, Parent::Its, Layer::None, world), AS_WRITTEN);
    }
}
