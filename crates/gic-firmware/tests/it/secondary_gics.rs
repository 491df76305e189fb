//! Tests devicetrees with several GICs: the choice of the root GIC, and the parents of secondary
//! GICs.

use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{ControllerKind, Description, Fact, GicVersion, IntId, devicetree};

fn machine() -> Description {
    devicetree::parse(include_bytes!("../data/cascaded.dtb")).expect("a readable tree")
}

#[test]
fn the_uncascaded_gic_is_the_root() {
    let machine = machine();
    let root = machine.gic.expect("a root");
    assert_eq!((root.id.as_str(), root.version.value), ("/intc@8000000", GicVersion::V3));
}

#[test]
fn secondary_gics_state_their_parent_interrupts() {
    let machine = machine();
    let parents: Vec<_> = machine
        .secondary_gics
        .iter()
        .map(|secondary| {
            let parent = secondary.parent.as_ref().expect("a parent");
            let intid = parent.intid.map(IntId::get);
            (secondary.gic.id.as_str(), parent.controller.as_str(), intid)
        })
        .collect();
    assert_eq!(
        parents,
        [
            ("/intc@2000000", "/intc@8000000", Some(42)),
            ("/intc@3000000", "/intc@2000000", Some(52)),
            ("/intc@4000000", "/gpio@6000000", None),
        ]
    );
    let places = machine.secondary_gics.iter().map(|secondary| {
        secondary.parent.as_ref().map(|parent: &Fact<_>| parent.origin.to_string())
    });
    let places: Vec<_> = places.flatten().collect();
    assert_eq!(places[0], "/intc@2000000: interrupts");
    assert_eq!(places[1], "/intc@3000000: interrupts-extended");
}

#[test]
fn an_msi_controller_belongs_to_the_gic_that_contains_it() {
    let machine = machine();
    let of = |kind: &ControllerKind| {
        let controller = machine.controllers.iter().find(|one| one.kind == *kind).expect("one");
        machine.gic_of(controller).expect("its GIC").id.to_string()
    };
    assert_eq!(of(&ControllerKind::V2m), "/intc@2000000");
    assert_eq!(of(&ControllerKind::Its), "/intc@8000000");
    assert_eq!(machine.root_controllers().count(), 1);
}

#[test]
fn spis_of_a_secondary_gic_do_not_conflict_with_the_root() {
    // The frame allocates INTIDs 64 to 95 of its own GIC; INTID 65 of the root GIC is wired to a
    // serial port.
    assert_eq!(check(&machine(), &KnownRegisters::default()), []);
}
