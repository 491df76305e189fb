//! Drivers that copy messages into a device, as ath11k does.

use crate::mock::{
    Addressing, CPUS, Hotplug as _, Machine, Store, StoreKind, combinations, lock, take_copies,
};
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceConfig};
use msi_types::{Cpu, MsiMessage, RequesterId};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

/// A device whose four rings send copies of the messages in its store.
struct Adapter {
    machine: Machine,
    store: Arc<Store>,
    rings: Arc<Mutex<[Option<MsiMessage>; 4]>>,
    device: MsiDevice,
    handles: Vec<IrqHandle>,
}

impl Adapter {
    fn attach(kind: Addressing, store: StoreKind) -> Self {
        let machine = Machine::new(kind);
        let store = machine.store(store);
        let rings = Arc::<Mutex<_>>::default();
        let (requester, parent) = (RequesterId::pci(1, 0, 0), machine.controller.clone());
        let config = MsiDeviceConfig::new("ath11k", requester, parent, store.clone());
        let config = config.with_copy(take_copies(&rings, &store));
        let device = MsiDevice::attach(&machine.interrupts, config).unwrap();
        Self { machine, store, rings, device, handles: Vec::new() }
    }

    fn start(kind: Addressing, store: StoreKind) -> Self {
        let mut adapter = Self::attach(kind, store);
        adapter.device.allocate(store.shape(), 4..=4).unwrap();
        let request = |slot| adapter.device.request(slot, "ring", |_| {}).unwrap();
        adapter.handles = (0..4).map(request).collect();
        adapter
    }

    /// Makes each ring send, and checks that its handler runs once, at the vector's CPU.
    fn every_ring_works(&self) {
        for (handle, message) in self.handles.iter().zip(*lock(&self.rings)) {
            let count = handle.count();
            self.machine.controller.signal(message.expect("a copy"));
            let at = (handle.effective_affinity(), handle.hwirq());
            assert_eq!(self.machine.controller.pending_at(), [at]);
            self.machine.settle();
            assert_eq!(handle.count(), count + 1);
        }
    }
}

#[test]
fn copies_follow_every_move_of_their_vectors() {
    for (kind, store) in combinations() {
        let adapter = Adapter::start(kind, store);
        let interrupts = &adapter.machine.interrupts;
        for (handle, cpu) in adapter.handles.iter().zip((0..CPUS).rev()) {
            interrupts.set_affinity(handle.irq(), Cpu::new(cpu)).unwrap();
            adapter.every_ring_works();
        }
        for cpu in (0..CPUS).map(Cpu::new) {
            assert_eq!(interrupts.offline(cpu), Ok(Vec::new()));
            adapter.every_ring_works();
            interrupts.bring_online(cpu).unwrap();
        }
    }
}

#[test]
fn a_failed_move_keeps_the_copies() {
    for store in StoreKind::EDGES {
        let adapter = Adapter::start(Addressing::NamesCpu, store);
        adapter.store.fail_in.store(0, Relaxed);
        adapter.handles[3].set_affinity(Cpu::new(2)).unwrap_err();
        adapter.every_ring_works();
    }
}

#[test]
fn a_restore_copies_all_messages_again() {
    for store in StoreKind::EDGES {
        let adapter = Adapter::start(Addressing::NamesCpu, store);
        adapter.store.reset();
        *lock(&adapter.rings) = [None; 4];
        adapter.device.restore().unwrap();
        adapter.every_ring_works();
    }
}

#[test]
fn copies_are_cleared_with_their_vectors() {
    let adapter = Adapter::start(Addressing::Stays, StoreKind::MSIX);
    adapter.device.free(2).unwrap();
    assert_eq!(lock(&adapter.rings).map(|copy| copy.is_some()), [true, true, false, true]);
    drop(adapter.device);
    assert_eq!(*lock(&adapter.rings), [None; 4]);
    for writes in 0..=4 {
        let adapter = Adapter::attach(Addressing::Stays, StoreKind::MSIX);
        adapter.store.fail_in.store(writes, Relaxed);
        adapter.device.allocate_at(&[0, 1, 2, 3]).unwrap_err();
        assert_eq!(*lock(&adapter.rings), [None; 4]);
    }
}

#[test]
fn a_disabled_rings_messages_wait_at_the_controller() {
    for store in StoreKind::EDGES {
        let adapter = Adapter::start(Addressing::NamesCpu, store);
        let message = lock(&adapter.rings)[1].unwrap();
        adapter.handles[1].disable();
        adapter.machine.controller.signal(message);
        adapter.machine.settle();
        assert_eq!(adapter.handles[1].count(), 0);
        assert!(adapter.machine.controller.is_masked(adapter.handles[1].hwirq()));
        adapter.handles[1].enable();
        adapter.machine.settle();
        assert_eq!(adapter.handles[1].count(), 1);
    }
}
