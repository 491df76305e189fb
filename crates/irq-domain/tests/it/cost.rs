//! Counts operations at the controller, each of which may require a round trip to the hardware.

use crate::mock::{Addressing, Machine, StoreKind};
use msi_types::Shape;
use std::sync::atomic::Ordering::Relaxed;

const STORES: [StoreKind; 4] =
    [StoreKind::MSIX, StoreKind::SLOW, StoreKind::MSI, StoreKind::MSI_MASKABLE];

fn shape(kind: StoreKind) -> Shape {
    if kind.group { Shape::AlignedGroup } else { Shape::Independent }
}

#[test]
fn a_device_is_released_in_one_step() {
    for kind in STORES {
        let machine = Machine::new(Addressing::Stays);
        let device = machine.attach(&machine.store(kind));
        device.allocate(shape(kind), 8..=8).unwrap();
        let handles: Vec<_> =
            (0..8).map(|slot| device.request(slot, "test", |_| {}).unwrap()).collect();
        drop(device);
        let controller = &machine.controller;
        assert_eq!(
            (controller.releases.load(Relaxed), controller.frees.load(Relaxed)),
            (1, 0),
            "{kind:?}"
        );
        assert_eq!(controller.mask_calls.load(Relaxed), 0, "{kind:?}");
        assert_eq!((controller.vectors_in_use(), controller.devices_attached()), (0, 0));
        drop(handles);
    }
}

#[test]
fn a_first_request_costs_the_controller_nothing() {
    for kind in STORES {
        let machine = Machine::new(Addressing::Stays);
        let device = machine.attach(&machine.store(kind));
        device.allocate(shape(kind), 8..=8).unwrap();
        let _handles: Vec<_> =
            (0..8).map(|slot| device.request(slot, "test", |_| {}).unwrap()).collect();
        assert_eq!(machine.controller.unmask_calls.load(Relaxed), 0, "{kind:?}");
    }
}

#[test]
fn a_later_handler_is_unmasked_at_the_controller() {
    let machine = Machine::new(Addressing::Stays);
    let store = machine.store(StoreKind::MSI);
    let device = machine.attach(&store);
    device.allocate(Shape::AlignedGroup, 1..=1).unwrap();
    let first = device.request(0, "first", |_| {}).unwrap();
    drop(first);
    assert!(machine.controller.is_masked(device.vectors().unwrap()[0].hwirq));
    let second = device.request(0, "second", |_| {}).unwrap();
    store.fire(0);
    machine.settle();
    assert_eq!(second.count(), 1);
}

#[test]
fn an_early_message_dies_with_its_device() {
    let machine = Machine::new(Addressing::Stays);
    let early = machine.store(StoreKind::MSI);
    let device = machine.attach(&early);
    device.allocate(Shape::AlignedGroup, 1..=1).unwrap();
    early.fire(0);
    machine.settle();
    drop(device);
    let device = machine.attach(&machine.store(StoreKind::MSI));
    device.allocate(Shape::AlignedGroup, 1..=1).unwrap();
    let handle = device.request(0, "successor", |_| {}).unwrap();
    machine.settle();
    assert_eq!((handle.count(), handle.redelivered()), (0, 0));
}
