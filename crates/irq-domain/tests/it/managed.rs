//! Managed vectors, which are confined to certain CPUs.

use crate::mock::{Addressing, CPUS, Hotplug as _, Kernel, Machine, Store, StoreKind};
use irq_domain::layer::{LayeredParent, ShimLayer};
use irq_domain::{IrqHandle, MoveError, MsiDevice, MsiDeviceConfig, MsiDeviceError};
use msi_types::{Cpu, MsiParent, RequesterId};
use std::sync::Arc;

const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);
const CPU2: Cpu = Cpu::new(2);
const CPU3: Cpu = Cpu::new(3);

/// Creates a machine with a device whose only vector has a handler and is confined to some CPUs.
fn managed(kind: Addressing, among: &[Cpu]) -> (Machine, Arc<Store>, MsiDevice, IrqHandle) {
    let machine = Machine::new(kind);
    let store = machine.store(StoreKind::MSIX);
    let device = machine.attach(&store);
    device.allocate_managed(0, among).unwrap();
    let handle = device.request(0, "queue", |_| {}).unwrap();
    (machine, store, device, handle)
}

#[test]
fn a_managed_vector_starts_on_an_online_cpu_of_its_set() {
    let machine = Machine::new(Addressing::NamesCpu);
    machine.interrupts.offline(CPU3).unwrap();
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    let granted = device.allocate_managed(2, &[CPU3, CPU1]).unwrap();
    assert_eq!((granted[0].slot, granted[0].cpu), (2, CPU1));
    assert_eq!(*machine.controller.managed.lock().unwrap(), [[CPU3, CPU1]]);
}

#[test]
fn a_managed_vector_moves_only_among_its_cpus() {
    let (_machine, _, _device, handle) = managed(Addressing::NamesCpu, &[CPU1, CPU2]);
    assert_eq!(handle.set_affinity(CPU0).unwrap_err(), MoveError::NotAmong(CPU0));
    handle.set_affinity(CPU2).unwrap();
    assert_eq!(handle.effective_affinity(), CPU2);
}

#[test]
fn a_managed_vector_restarts_when_any_of_its_cpus_returns() {
    for (kind, back) in
        [(Addressing::Stays, CPU1), (Addressing::NamesCpu, CPU1), (Addressing::NamesCpu, CPU2)]
    {
        let (machine, store, _device, handle) = managed(kind, &[CPU1, CPU2]);
        assert_eq!(machine.interrupts.offline(CPU1).unwrap(), []);
        assert_eq!(handle.effective_affinity(), CPU2);
        assert_eq!(machine.interrupts.offline(CPU2).unwrap(), []);
        store.fire(0);
        machine.settle();
        assert_eq!(handle.count(), 0, "it is shut down");
        assert_eq!(machine.interrupts.bring_online(back).unwrap(), []);
        machine.settle();
        assert_eq!((handle.effective_affinity(), handle.count()), (back, 1));
    }
}

#[test]
fn a_shut_down_vector_without_a_handler_stays_masked() {
    let (machine, store, _device, handle) = managed(Addressing::NamesCpu, &[CPU1]);
    machine.interrupts.offline(CPU1).unwrap();
    drop(handle);
    assert_eq!(machine.interrupts.bring_online(CPU1).unwrap(), []);
    assert!(store.is_masked(0));
}

#[test]
fn a_vector_requested_while_shut_down_starts_when_its_cpu_comes_online() {
    let machine = Machine::new(Addressing::NamesCpu);
    let store = machine.store(StoreKind::MSIX);
    let device = machine.attach(&store);
    device.allocate_managed(0, &[CPU1]).unwrap();
    machine.interrupts.offline(CPU1).unwrap();
    let handle = device.request(0, "queue", |_| {}).unwrap();
    assert!(!machine.interrupts.irq_info(handle.irq()).unwrap().unwrap().enabled);
    store.fire(0);
    machine.interrupts.bring_online(CPU1).unwrap();
    machine.settle();
    assert_eq!(handle.count(), 1);
}

#[test]
fn a_disabled_managed_vector_stays_disabled_when_its_cpu_comes_online() {
    let (machine, store, _device, handle) = managed(Addressing::NamesCpu, &[CPU1]);
    handle.disable();
    machine.interrupts.offline(CPU1).unwrap();
    store.fire(0);
    machine.interrupts.bring_online(CPU1).unwrap();
    machine.settle();
    assert_eq!(handle.count(), 0);
    handle.enable();
    machine.settle();
    assert_eq!(handle.count(), 1);
}

#[test]
fn a_vector_that_cannot_start_is_reported() {
    let (machine, store, _device, handle) = managed(Addressing::NamesCpu, &[CPU1, CPU2]);
    machine.interrupts.offline(CPU1).unwrap();
    machine.interrupts.offline(CPU2).unwrap();
    machine.controller.set_unreachable(1);
    let stranded = machine.interrupts.bring_online(CPU1).unwrap();
    assert_eq!(stranded.iter().map(|left| left.irq).collect::<Vec<_>>(), [handle.irq()]);
    store.fire(0);
    assert_eq!(machine.interrupts.bring_online(CPU2).unwrap(), []);
    machine.settle();
    assert_eq!((handle.effective_affinity(), handle.count()), (CPU2, 1));
}

#[test]
fn managed_vectors_spread_over_the_cpus_of_their_set() {
    let machine = Machine::new(Addressing::Stays);
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    let all = [CPU0, CPU1, CPU2, CPU3];
    let granted = |slot| device.allocate_managed(slot, &all).unwrap()[0].cpu;
    assert_eq!((0..4).map(granted).collect::<Vec<_>>(), all);
    machine.interrupts.offline(CPU3).unwrap();
    assert_eq!((4..7).map(granted).collect::<Vec<_>>(), [CPU1, CPU2, CPU0]);
}

#[test]
fn unmanaged_vectors_move_to_any_cpu() {
    let machine = Machine::new(Addressing::NamesCpu);
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate_managed(0, &[CPU1]).unwrap();
    device.allocate_at(&[1]).unwrap();
    let handle = device.request(1, "control", |_| {}).unwrap();
    for cpu in (0..CPUS).map(Cpu::new) {
        handle.set_affinity(cpu).unwrap();
    }
}

#[test]
fn a_managed_allocation_without_an_online_cpu_is_refused() {
    let machine = Machine::new(Addressing::NamesCpu);
    machine.interrupts.offline(CPU3).unwrap();
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    assert_eq!(device.allocate_managed(0, &[CPU3]).unwrap_err(), MsiDeviceError::NoCpu);
    assert_eq!(device.allocate_managed(0, &[]).unwrap_err(), MsiDeviceError::NoCpu);
    assert_eq!(machine.controller.vectors_in_use(), 0);
}

#[test]
fn layers_forward_the_cpu_set_of_a_managed_vector() {
    let machine = Machine::new(Addressing::NamesCpu);
    let bridge =
        LayeredParent::new(ShimLayer::new("bridge"), machine.controller.clone(), Arc::new(Kernel));
    let parent: Arc<dyn MsiParent> = Arc::new(bridge);
    let store = machine.store(StoreKind::MSIX);
    let config = MsiDeviceConfig::new("device", RequesterId::pci(1, 0, 0), parent, store);
    let device = MsiDevice::attach(&machine.interrupts, config).unwrap();
    device.allocate_managed(0, &[CPU1, CPU2]).unwrap();
    assert_eq!(*machine.controller.managed.lock().unwrap(), [[CPU1, CPU2]]);
    device.free(0).unwrap();
    assert_eq!(machine.controller.vectors_in_use(), 0);
}
