//! Level-triggered devices: one message asserts, the other deasserts.

use crate::mock::{Addressing, Machine, StoreKind, attached};
use irq_domain::{Flow, IrqHandle, MoveError, MsiDevice, MsiDeviceError};
use msi_types::{Cpu, MsiError, Shape};

fn requested(device: &MsiDevice) -> IrqHandle {
    device.request(0, "test", |_| {}).unwrap()
}

#[test]
fn a_level_slot_stores_assert_and_deassert_messages() {
    let (_machine, store, _device) = attached(Addressing::Stays, StoreKind::LEVEL, 2);
    let (assert, deassert) = (store.message(1).unwrap(), store.deassert(1).unwrap());
    assert_eq!((deassert.address - assert.address, deassert.data), (0x10_0000, assert.data));
}

#[test]
fn a_level_is_masked_until_it_has_a_handler() {
    let (machine, store, device) = attached(Addressing::Stays, StoreKind::LEVEL, 2);
    store.fire(0);
    let hwirq = device.vectors().unwrap()[0].hwirq;
    assert!(machine.controller.is_masked(hwirq));
    let handle = requested(&device);
    machine.settle();
    assert_eq!(handle.count(), 1);
    drop(handle);
    assert!(machine.controller.is_masked(hwirq));
}

#[test]
fn a_level_is_never_redelivered() {
    let (machine, store, device) = attached(Addressing::Stays, StoreKind::LEVEL, 2);
    let handle = requested(&device);
    handle.disable();
    let hwirq = device.vectors().unwrap()[0].hwirq;
    machine.interrupts.dispatch(Cpu::new(0), hwirq);
    handle.enable();
    assert_eq!((machine.controller.pending_at(), handle.redelivered()), (vec![], 0));
    store.fire(0);
    machine.settle();
    let flow = machine.interrupts.irq_info(handle.irq()).unwrap().unwrap().flow;
    assert_eq!((handle.count(), flow), (1, Flow::Level));
}

#[test]
fn moving_a_level_with_two_messages_is_refused() {
    let (machine, store, device) = attached(Addressing::NamesCpu, StoreKind::LEVEL, 2);
    let handle = requested(&device);
    let elsewhere = Cpu::new((handle.effective_affinity().get() + 1) % 4);
    let refused = handle.set_affinity(elsewhere);
    assert!(matches!(refused, Err(MoveError::Controller(MsiError::WouldTear))), "{refused:?}");
    store.fire(0);
    machine.settle();
    assert_eq!(handle.count(), 1);
}

#[test]
fn a_group_of_levels_is_refused() {
    let machine = Machine::new(Addressing::Stays);
    let store = machine.store(StoreKind { group: true, ..StoreKind::LEVEL });
    let refused = machine.attach(&store).allocate(Shape::AlignedGroup, 4..=4);
    assert_eq!(refused, Err(MsiDeviceError::Controller(MsiError::NoLevels)));
    assert_eq!(machine.controller.vectors_in_use(), 0);
}
