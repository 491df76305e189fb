//! Several domains on one device, and vectors that are added and removed one by one.

use crate::mock::{Addressing, Controller, LongHandler, Machine, Store, StoreKind, attached};
use irq_domain::{
    Dispatched, IrqHandle, MsiDevice, MsiDeviceError, MsiVector, SharedDevice, Unhandled,
};
use msi_types::{Cpu, MsiError, RequesterId, Shape};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Arc, Mutex};

fn shared(machine: &Machine) -> SharedDevice {
    let requester = RequesterId::pci(1, 0, 0);
    let controller = machine.controller.clone();
    SharedDevice::attach(&machine.interrupts, requester, controller, 16).unwrap()
}

/// Creates a device with an MSI-X table, and IMS behind a command queue.
fn two_domains(machine: &Machine) -> (SharedDevice, [(Arc<Store>, MsiDevice); 2]) {
    let device = shared(machine);
    let domains = [("msix", StoreKind::MSIX), ("ims", StoreKind::SLOW)].map(|(name, kind)| {
        let store = machine.store(kind);
        (store.clone(), device.domain(name, store).unwrap())
    });
    (device, domains)
}

#[test]
fn domains_of_a_device_share_its_attachment_only() {
    let machine = Machine::new(Addressing::NamesCpu);
    let (_device, domains) = two_domains(&machine);
    let handles = domains.each_ref().map(|(_, domain)| {
        domain.allocate(Shape::Independent, 4..=4).unwrap();
        domain.request(2, "test", |_| {}).unwrap()
    });
    assert_eq!(machine.controller.in_use(), (8, 1));
    domains[1].0.fire(2);
    machine.settle();
    assert_eq!(handles.each_ref().map(IrqHandle::count), [0, 1]);
}

#[test]
fn dropping_a_domain_keeps_the_other_domains_working() {
    let machine = Machine::new(Addressing::NamesCpu);
    let (device, [(_, first), (store, second)]) = two_domains(&machine);
    first.allocate(Shape::Independent, 4..=4).unwrap();
    second.allocate(Shape::Independent, 1..=1).unwrap();
    let handle = second.request(0, "test", |_| {}).unwrap();
    drop(first);
    drop(device);
    assert_eq!(machine.controller.in_use(), (1, 1));
    store.fire(0);
    machine.settle();
    assert_eq!(handle.count(), 1);
    drop(second);
    assert_eq!(machine.controller.devices_attached(), 0);
}

#[test]
fn a_task_detaches_a_device_dropped_in_a_handler() {
    let machine = Machine::new(Addressing::Stays);
    let device = Mutex::new(Some(shared(&machine)));
    let store = machine.store(StoreKind::MSIX);
    let other = machine.attach(&store);
    other.allocate(Shape::Independent, 1..=1).unwrap();
    let _handle = other.request(0, "test", move |_| drop(device.lock().unwrap().take())).unwrap();
    store.fire(0);
    machine.settle();
    assert_eq!(machine.controller.devices_attached(), 2);
    machine.interrupts.reclaim();
    assert_eq!(machine.controller.devices_attached(), 1);
}

#[test]
fn a_slot_in_use_or_beyond_the_store_is_not_allocated() {
    let machine = Machine::new(Addressing::Stays);
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    device.allocate_at(&[3]).unwrap();
    assert_eq!(device.allocate_at(&[1, 3]), Err(MsiDeviceError::SlotInUse(3)));
    assert_eq!(device.allocate_at(&[1, 1]), Err(MsiDeviceError::SlotInUse(1)));
    assert_eq!(device.allocate_at(&[8]), Err(MsiDeviceError::NoSlot(8)));
    assert!(matches!(device.allocate_at(&[]), Err(MsiDeviceError::BadCount { .. })));
    assert_eq!(machine.controller.vectors_in_use(), 1);
}

#[test]
fn a_freed_slot_is_used_again() {
    for kind in [StoreKind::MSIX, StoreKind::SLOW] {
        let machine = Machine::with_controller(Controller::with_capacity(Addressing::NamesCpu, 2));
        let store = machine.store(kind);
        let device = machine.attach(&store);
        device.allocate_at(&[0, 1]).unwrap();
        let stale = device.request(1, "stale", |_| -> () { panic!("ran") }).unwrap();
        device.free(1).unwrap();
        assert_eq!(machine.controller.vectors_in_use(), 1);
        device.allocate_at(&[1]).unwrap();
        let handle = device.request(1, "fresh", |_| {}).unwrap();
        stale.disable();
        drop(stale);
        store.fire(1);
        machine.settle();
        assert_eq!(handle.count(), 1, "{kind:?}");
    }
}

/// The handler runs on CPU 1, and may have dropped its own handle.
#[test]
fn free_waits_for_the_handler() {
    for drops_itself in [false, true] {
        let (machine, _, device) = attached(Addressing::Stays, StoreKind::MSIX, 1);
        let own = Arc::new(Mutex::new(None::<IrqHandle>));
        let (inner, (long, run)) = (own.clone(), LongHandler::new());
        let controller = machine.controller.clone();
        let handle = device.request(0, "test", move |_| {
            if drops_itself {
                drop(inner.lock().unwrap().take());
            }
            run();
            assert_eq!(controller.vectors_in_use(), 1, "freed while its handler runs");
        });
        let handle = handle.unwrap();
        let hwirq = handle.hwirq();
        *own.lock().unwrap() = Some(handle);
        assert!(long.awaited_by(&machine, hwirq, || device.free(0).unwrap()), "{drops_itself}");
        assert_eq!(machine.controller.vectors_in_use(), 0);
        let late = machine.interrupts.dispatch(Cpu::new(0), hwirq);
        assert_eq!(late, Dispatched::Unhandled(Unhandled::Released));
    }
}

#[test]
fn freeing_one_vector_of_a_group_is_refused() {
    let (_machine, _, device) = attached(Addressing::Stays, StoreKind::MSI, 4);
    assert_eq!(device.free(1), Err(MsiDeviceError::OfAGroup(1)));
    assert_eq!(device.free(5), Err(MsiDeviceError::NoVector(5)));
}

#[test]
fn freeing_the_last_vector_disables_the_store() {
    let machine = Machine::new(Addressing::Stays);
    let store = machine.store(StoreKind::SLOW);
    let device = machine.attach(&store);
    device.allocate_at(&[0, 6]).unwrap();
    device.free(0).unwrap();
    assert!(store.enabled.load(SeqCst));
    device.free(6).unwrap();
    assert!(!store.enabled.load(SeqCst));
    device.allocate_at(&[6]).unwrap();
    assert!(store.enabled.load(SeqCst));
}

#[test]
fn sent_message_reports_each_vector_of_a_group() {
    let machine = Machine::new(Addressing::NamesCpu);
    let device = machine.attach(&machine.store(StoreKind::MSI));
    let granted = device.allocate(Shape::AlignedGroup, 4..=4).unwrap();
    for vector in granted {
        let sent = device.sent_message(vector.slot).unwrap();
        assert_eq!(sent.data, vector.hwirq.get());
        assert_eq!(sent.address, device.message(0).unwrap().address);
    }
    assert_eq!(device.sent_message(4), None);
}

#[derive(Clone, Debug)]
enum Step {
    Allocate { domain: usize, min: u16, more: u16 },
    AllocateAt { domain: usize, slots: Vec<u16> },
    Free { domain: usize, slot: u16 },
    Request { domain: usize, slot: u16 },
    Fire { domain: usize, slot: u16 },
    Move { domain: usize, slot: u16, cpu: u32 },
    Replace { domain: usize },
    ControllerFails { after: usize },
    StoreFails { domain: usize, after: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let (domain, slot) = (0..2usize, 0..8u16);
    prop_oneof![
        2 => (domain.clone(), 1..4u16, 0..4u16)
            .prop_map(|(domain, min, more)| Step::Allocate { domain, min, more }),
        4 => (domain.clone(), prop::collection::vec(slot.clone(), 1..4))
            .prop_map(|(domain, slots)| Step::AllocateAt { domain, slots }),
        4 => (domain.clone(), slot.clone()).prop_map(|(domain, slot)| Step::Free { domain, slot }),
        3 => (domain.clone(), slot.clone())
            .prop_map(|(domain, slot)| Step::Request { domain, slot }),
        3 => (domain.clone(), slot.clone()).prop_map(|(domain, slot)| Step::Fire { domain, slot }),
        2 => (domain.clone(), slot, 0..4u32)
            .prop_map(|(domain, slot, cpu)| Step::Move { domain, slot, cpu }),
        1 => domain.clone().prop_map(|domain| Step::Replace { domain }),
        1 => (0..8usize).prop_map(|after| Step::ControllerFails { after }),
        1 => (domain, 0..8usize).prop_map(|(domain, after)| Step::StoreFails { domain, after }),
    ]
}

/// A device with two domains, and its expected state.
struct Model {
    machine: Machine,
    device: SharedDevice,
    domains: [(Arc<Store>, Option<MsiDevice>); 2],
    /// The slots in use, by domain.
    slots: [BTreeSet<u16>; 2],
    handles: BTreeMap<(usize, u16), IrqHandle>,
}

impl Model {
    fn new(kind: Addressing) -> Self {
        let machine = Machine::with_controller(Controller::with_capacity(kind, 13));
        let (device, domains) = two_domains(&machine);
        let domains = domains.map(|(store, domain)| (store, Some(domain)));
        Self { machine, device, domains, slots: Default::default(), handles: BTreeMap::new() }
    }

    fn domain(&self, index: usize) -> &MsiDevice {
        self.domains[index].1.as_ref().unwrap()
    }

    fn note(&mut self, domain: usize, granted: &[MsiVector]) {
        self.slots[domain].extend(granted.iter().map(|vector| vector.slot));
    }

    fn run(&mut self, step: &Step) {
        match step.clone() {
            Step::Allocate { domain, min, more } => {
                if let Ok(granted) =
                    self.domain(domain).allocate(Shape::Independent, min..=min + more)
                {
                    self.note(domain, &granted);
                }
            }
            Step::AllocateAt { domain, slots } => {
                if let Ok(granted) = self.domain(domain).allocate_at(&slots) {
                    self.note(domain, &granted);
                }
            }
            Step::Free { domain, slot } => {
                if let Ok(()) | Err(MsiDeviceError::Store(_)) = self.domain(domain).free(slot) {
                    self.slots[domain].remove(&slot);
                    self.handles.remove(&(domain, slot));
                }
            }
            Step::Request { domain, slot } => self.request(domain, slot),
            Step::Fire { domain, slot } => self.fire(domain, slot),
            Step::Move { domain, slot, cpu } => {
                if let Some(handle) = self.handles.get(&(domain, slot)) {
                    let before = handle.effective_affinity();
                    let moved = handle.set_affinity(Cpu::new(cpu)).map(|moved| moved.to);
                    assert_eq!(handle.effective_affinity(), moved.unwrap_or(before));
                }
            }
            Step::Replace { domain } => self.replace(domain),
            Step::ControllerFails { after } => {
                self.machine.controller.fail_in.store(after, Relaxed);
            }
            Step::StoreFails { domain, after } => {
                self.domains[domain].0.fail_in.store(after, Relaxed);
            }
        }
        self.check();
    }

    fn request(&mut self, domain: usize, slot: u16) {
        if !self.handles.contains_key(&(domain, slot))
            && let Ok(handle) = self.domain(domain).request(slot, "test", |_| {})
        {
            self.handles.insert((domain, slot), handle);
        }
    }

    fn fire(&self, domain: usize, slot: u16) {
        self.machine.settle();
        if let Some(handle) = self.handles.get(&(domain, slot)) {
            let before = handle.count();
            self.domains[domain].0.fire(slot);
            self.machine.settle();
            assert_eq!(handle.count(), before + 1, "lost");
        }
    }

    fn replace(&mut self, domain: usize) {
        let (store, device) = &mut self.domains[domain];
        drop(device.take());
        store.fail_in.store(usize::MAX, Relaxed);
        *device = Some(self.device.domain("again", store.clone()).unwrap());
        self.slots[domain].clear();
        self.handles.retain(|key, _| key.0 != domain);
    }

    fn check(&self) {
        let live: usize = self.slots.iter().map(BTreeSet::len).sum();
        assert_eq!(self.machine.controller.vectors_in_use(), live, "leaked, or freed too early");
        for (index, (store, domain)) in self.domains.iter().enumerate() {
            let vectors = domain.as_ref().unwrap().vectors().unwrap();
            let slots: BTreeSet<_> = vectors.iter().map(|vector| vector.slot).collect();
            assert_eq!(slots, self.slots[index]);
            for slot in slots {
                assert_eq!(self.domain(index).message(slot), store.message(slot));
            }
        }
        assert_eq!(self.machine.interrupts.snapshot().unwrap().len(), live, "leaked numbers");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_operations_release_every_resource(
        kind in prop_oneof![Just(Addressing::Stays), Just(Addressing::NamesCpu)],
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut model = Model::new(kind);
        for step in &steps {
            model.run(step);
        }
        let Model { machine, device, domains, handles, .. } = model;
        let stores = domains.each_ref().map(|(store, _)| store.clone());
        drop(domains);
        prop_assert_eq!(machine.controller.vectors_in_use(), 0);
        prop_assert_eq!(machine.controller.devices_attached(), 1);
        drop(device);
        prop_assert_eq!(machine.controller.devices_attached(), 0);
        prop_assert!(machine.interrupts.snapshot().unwrap().is_empty());
        prop_assert!(stores.iter().all(|store| !store.enabled.load(SeqCst)));
        drop(handles);
    }
}

#[test]
fn allocation_beyond_the_controllers_vectors_is_refused() {
    let machine = Machine::with_controller(Controller::with_capacity(Addressing::Stays, 2));
    let device = machine.attach(&machine.store(StoreKind::MSIX));
    let refused = device.allocate_at(&[0, 1, 2]);
    assert_eq!(refused, Err(MsiDeviceError::Controller(MsiError::NoVectors { wanted: 1 })));
    assert_eq!(machine.controller.vectors_in_use(), 0);
}
