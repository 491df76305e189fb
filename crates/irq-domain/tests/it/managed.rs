//! Vectors that follow certain CPUs.

use crate::mock::{CPUS, Kernel, Kind, Machine, StoreKind};
use irq_domain::layer::{Over, ShimLayer};
use irq_domain::{MoveError, MsiDevice, MsiDeviceConfig, MsiDeviceError, Stranded};
use msi_types::{Cpu, MsiParent, RequesterId};
use std::sync::Arc;

const CPU0: Cpu = Cpu::new(0);
const CPU1: Cpu = Cpu::new(1);
const CPU2: Cpu = Cpu::new(2);
const CPU3: Cpu = Cpu::new(3);

#[test]
fn a_managed_vector_begins_at_the_first_of_its_cpus_that_is_on_line() {
    let machine = Machine::new(Kind::NamesCpu);
    machine.interrupts.cpu_offline(CPU3).unwrap();
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    let granted = device.allocate_managed(2, &[CPU3, CPU1]).unwrap();
    assert_eq!((granted[0].slot, granted[0].cpu), (2, CPU1));
    assert_eq!(*machine.controller.managed.lock().unwrap(), [[CPU3, CPU1]]);
}

#[test]
fn a_managed_vector_goes_nowhere_but_to_its_cpus() {
    let machine = Machine::new(Kind::NamesCpu);
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate_managed(0, &[CPU1, CPU2]).unwrap();
    let handle = device.request(0, "queue", |_| {}).unwrap();
    assert_eq!(handle.set_affinity(CPU0).unwrap_err(), MoveError::NotAmong(CPU0));
    handle.set_affinity(CPU2).unwrap();
    assert_eq!(handle.effective_affinity(), CPU2);
}

#[test]
fn a_managed_vector_follows_its_cpus_until_none_is_left_and_is_there_when_one_is_back() {
    for kind in [Kind::Stays, Kind::NamesCpu] {
        let machine = Machine::new(kind);
        let store = machine.store(StoreKind::MSIX);
        let device = machine.attach(&store);
        device.allocate_managed(0, &[CPU1, CPU2]).unwrap();
        let handle = device.request(0, "queue", |_| {}).unwrap();
        assert_eq!(machine.interrupts.cpu_offline(CPU1).unwrap(), []);
        assert_eq!(handle.effective_affinity(), CPU2);
        let left = machine.interrupts.cpu_offline(CPU2).unwrap();
        assert_eq!(left, [Stranded { irq: handle.irq(), error: MoveError::Offline(CPU2) }]);
        machine.interrupts.cpu_online(CPU2).unwrap();
        store.fire(0);
        machine.settle();
        assert_eq!((handle.effective_affinity(), handle.count()), (CPU2, 1));
    }
}

#[test]
fn other_vectors_of_the_device_go_where_they_like() {
    let machine = Machine::new(Kind::NamesCpu);
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate_managed(0, &[CPU1]).unwrap();
    device.allocate_at(&[1]).unwrap();
    let handle = device.request(1, "control", |_| {}).unwrap();
    for cpu in (0..CPUS).map(Cpu::new) {
        handle.set_affinity(cpu).unwrap();
    }
}

#[test]
fn without_a_cpu_on_line_nothing_is_granted_and_nothing_remains() {
    let machine = Machine::new(Kind::NamesCpu);
    machine.interrupts.cpu_offline(CPU3).unwrap();
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    assert_eq!(device.allocate_managed(0, &[CPU3]).unwrap_err(), MsiDeviceError::NoCpu);
    assert_eq!(device.allocate_managed(0, &[]).unwrap_err(), MsiDeviceError::NoCpu);
    assert_eq!(machine.controller.vectors_in_use(), 0);
}

#[test]
fn layers_pass_on_for_which_cpus_a_vector_is_managed() {
    let machine = Machine::new(Kind::NamesCpu);
    let bridge = Over::new(ShimLayer::new("bridge"), machine.controller.clone(), Arc::new(Kernel));
    let parent: Arc<dyn MsiParent> = Arc::new(bridge);
    let store = machine.store(StoreKind::MSIX);
    let config = MsiDeviceConfig { name: "device", requester: RequesterId::pci(1, 0, 0), parent, store };
    let device = MsiDevice::attach(&machine.interrupts, config).unwrap();
    device.allocate_managed(0, &[CPU1, CPU2]).unwrap();
    assert_eq!(*machine.controller.managed.lock().unwrap(), [[CPU1, CPU2]]);
    device.free(0).unwrap();
    assert_eq!(machine.controller.vectors_in_use(), 0);
}
