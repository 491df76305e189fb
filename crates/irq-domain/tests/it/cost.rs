//! Counts operations at the controller, each of which may require a round trip to the hardware.

use crate::mock::{Addressing, Controller, StoreKind, attached};
use msi_types::Shape;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn requests_need_no_controller_unmask_and_a_release_is_one_call() {
    for kind in StoreKind::EDGES {
        let (machine, _, device) = attached(Addressing::Stays, kind, 8);
        let handles: Vec<_> =
            (0..8).map(|slot| device.request(slot, "test", |_| {}).unwrap()).collect();
        assert_eq!(machine.controller.unmask_calls.load(Relaxed), 0, "{kind:?}");
        drop(device);
        let Controller { releases, frees, mask_calls, .. } = &*machine.controller;
        let calls = [releases, frees, mask_calls].map(|calls| calls.load(Relaxed));
        assert_eq!((calls, machine.controller.in_use()), ([1, 0, 0], (0, 0)), "{kind:?}");
        drop(handles);
    }
}

#[test]
fn a_later_request_unmasks_at_the_controller() {
    let (machine, store, device) = attached(Addressing::Stays, StoreKind::MSI, 1);
    drop(device.request(0, "first", |_| {}).unwrap());
    assert!(machine.controller.is_masked(device.vectors().unwrap()[0].hwirq));
    let second = device.request(0, "second", |_| {}).unwrap();
    store.fire(0);
    machine.settle();
    assert_eq!(second.count(), 1);
}

#[test]
fn a_message_before_request_is_discarded_with_its_device() {
    let (machine, early, device) = attached(Addressing::Stays, StoreKind::MSI, 1);
    early.fire(0);
    machine.settle();
    drop(device);
    let device = machine.attach(&machine.store(StoreKind::MSI));
    device.allocate(Shape::AlignedGroup, 1..=1).unwrap();
    let handle = device.request(0, "successor", |_| {}).unwrap();
    machine.settle();
    assert_eq!((handle.count(), handle.redelivered()), (0, 0));
}
