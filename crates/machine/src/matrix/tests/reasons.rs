//! Each reason to refuse, and what makes it go away.

use super::*;

fn tried(endpoint: Endpoint, parent: Parent, layer: Layer, world: World) -> Outcome {
    try_cell(Cell { endpoint, parent, layer, world })
}

/// Refused by the reason that contains this.
#[track_caller]
fn assert_refused(outcome: &Outcome, why: &str) {
    assert!(matches!(outcome, Outcome::Refused(reason) if reason.contains(why)), "{outcome:?}");
}

#[test]
fn x86_vectors_have_no_groups_and_remapping_brings_them() {
    let on = |layer| tried(Endpoint::PciMultiMsi, Parent::X86Vector, layer, World::BareMetal);
    assert_refused(&on(Layer::None), "aligned groups of vectors, which tier x86-vector");
    assert_eq!(on(Layer::Remapping), Outcome::Works);
}

#[test]
fn in_a_guest_a_virtual_its_alone_makes_no_stored_message_real() {
    let on = |endpoint, world| tried(endpoint, Parent::Its, Layer::None, world);
    assert_refused(&on(Endpoint::ImsQueue, World::Guest), "no virtual IOMMU remaps");
    assert_eq!(on(Endpoint::ImsQueue, World::GuestRemapped), Outcome::Works);
    assert_eq!(on(Endpoint::PciMsix, World::Guest), Outcome::Works);
}

#[test]
fn a_guest_s_ims_needs_a_doorbell_without_the_redistributor_s_controls() {
    let on = |parent| tried(Endpoint::ImsRing, parent, Layer::DoorbellMapping, World::GuestRemapped);
    assert_refused(&on(Parent::DirectLpi), "GICR_CTLR, GICR_PROPBASER and GICR_PENDBASER");
    assert_eq!(on(Parent::Its), Outcome::Works);
}

#[test]
fn a_guest_s_ims_needs_a_doorbell_without_the_distributor_s_controls() {
    let on = |world| tried(Endpoint::ImsRing, Parent::Mbi, Layer::None, world);
    assert_refused(&on(World::GuestRemapped), "the page of GICD_SETSPI (the distributor's own)");
    assert_eq!(on(World::BareMetal), Outcome::Works);
}

#[test]
fn a_guest_s_ims_needs_a_doorbell_that_asks_who_rings() {
    let on = |endpoint| tried(endpoint, Parent::V2m, Layer::None, World::GuestRemapped);
    assert_refused(&on(Endpoint::ImsQueue), "any bus master may ring any interrupt at a GICv2m frame");
    assert_eq!(on(Endpoint::PciMsi), Outcome::Works);
}

#[test]
fn a_guest_s_ims_on_x86_needs_remapping() {
    let on = |layer| tried(Endpoint::Platform, Parent::X86Vector, layer, World::GuestRemapped);
    assert_refused(&on(Layer::None), "any bus master may ring any interrupt at the local APICs");
    assert_refused(&on(Layer::DoorbellMapping), "any bus master may ring any interrupt at the local APICs");
    assert_eq!(on(Layer::Remapping), Outcome::Works);
}
