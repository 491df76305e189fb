//! Vector allocation: granting, writing, rolling back and freeing.

use crate::mock::{
    Addressing, CPUS, Controller, FIRST, Hook, Hotplug as _, Machine, Store, StoreKind, on_wait,
    refusal,
};
use irq_domain::{IrqHandle, MsiDevice, MsiDeviceError, MsiVector};
use msi_types::{Cpu, FastMask, Masking, MsiError, Shape};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::channel;

fn grant(
    machine: &Machine,
    store: &Arc<Store>,
    wanted: RangeInclusive<u16>,
) -> (MsiDevice, Result<Vec<MsiVector>, MsiDeviceError>) {
    let device = machine.attach(store);
    let granted = device.allocate(store.kind.shape(), wanted);
    (device, granted)
}

#[test]
fn independent_vectors_spread_over_online_cpus() {
    let machine = Machine::new(Addressing::Stays);
    let (_device, granted) = grant(&machine, &machine.store(StoreKind::MSIX), 8..=8);
    let mut per_cpu = BTreeMap::new();
    granted.unwrap().iter().for_each(|vector| *per_cpu.entry(vector.cpu).or_insert(0) += 1);
    assert_eq!(per_cpu, (0..CPUS).map(|cpu| (Cpu::new(cpu), 2)).collect());
}

#[test]
fn a_message_before_the_request_is_delivered_after_it() {
    for kind in StoreKind::EDGES {
        let machine = Machine::new(Addressing::Stays);
        let store = machine.store(kind);
        let (device, granted) = grant(&machine, &store, 1..=1);
        granted.unwrap();
        store.fire(0);
        machine.settle();
        let handle = device.request(0, "late", |_| {}).unwrap();
        assert_eq!(handle.count(), 0);
        machine.settle();
        assert_eq!(handle.count(), 1, "{kind:?}: an early message was lost");
    }
}

#[test]
fn allocation_masks_slots_that_were_left_unmasked() {
    let machine = Machine::new(Addressing::Stays);
    let store = machine.store(StoreKind::MSIX);
    (0..8).for_each(|slot| FastMask::unmask(&*store, slot));
    let (_device, granted) = grant(&machine, &store, 8..=8);
    granted.unwrap();
    assert!((0..8).all(|slot| store.is_masked(slot)));
}

#[test]
fn grants_are_limited_by_the_controllers_vectors() {
    for (capacity, wanted, expected) in [(7, 1..=8, Ok(7)), (5, 5..=8, Ok(5)), (5, 6..=8, Err(()))]
    {
        let machine =
            Machine::with_controller(Controller::with_capacity(Addressing::Stays, capacity));
        let store = machine.store(StoreKind::MSIX);
        let (_device, granted) = grant(&machine, &store, wanted);
        assert_eq!(granted.map(|granted| granted.len()).map_err(drop), expected);
        let used = if expected.is_ok() { capacity as usize } else { 0 };
        assert_eq!(machine.controller.vectors_in_use(), used);
    }
}

#[test]
fn a_group_is_halved_until_it_fits() {
    let machine = Machine::with_controller(Controller::with_capacity(Addressing::NamesCpu, 3));
    let store = machine.store(StoreKind::MSI);
    let (_device, granted) = grant(&machine, &store, 1..=8);
    assert_eq!(granted.unwrap().len(), 2);
    assert_eq!(store.granted.load(Ordering::Relaxed), 2);
}

#[test]
#[expect(clippy::reversed_empty_ranges, reason = "the point of the test")]
fn an_impossible_count_is_refused() {
    let bad = |min, max| MsiDeviceError::BadCount { min, max };
    let machine = Machine::with_controller(Controller::with_capacity(Addressing::NamesCpu, 3));
    for (kind, wanted, error) in [
        (StoreKind::MSIX, 0..=0, bad(0, 0)),
        (StoreKind::MSI, 0..=0, bad(0, 0)),
        (StoreKind::MSIX, 4..=2, bad(4, 2)),
        (StoreKind::MSI, 4..=2, bad(4, 2)),
        (StoreKind::MSI, 3..=3, bad(3, 3)),
        (StoreKind::MSI, 4..=8, MsiError::NoVectors { wanted: 4 }.into()),
        (StoreKind::MSIX, 9..=9, MsiDeviceError::TooFewSlots { free: 8, wanted: 9 }),
    ] {
        assert_eq!(grant(&machine, &machine.store(kind), wanted).1, Err(error), "{kind:?}");
    }
}

#[test]
fn a_second_group_allocation_is_refused() {
    let machine = Machine::new(Addressing::Stays);
    let (device, granted) = grant(&machine, &machine.store(StoreKind::MSI), 4..=4);
    granted.unwrap();
    let more = device.allocate(Shape::AlignedGroup, 1..=1);
    assert_eq!(more, Err(MsiDeviceError::GroupNotFirst));
}

#[test]
fn grants_are_limited_by_the_stores_slots() {
    let machine = Machine::new(Addressing::Stays);
    let store = machine.store(StoreKind::MSIX);
    let (_device, granted) = grant(&machine, &store, 1..=u16::MAX);
    assert_eq!(granted.unwrap().len(), 8);
}

#[test]
fn later_vectors_use_the_next_slots() {
    let machine = Machine::new(Addressing::Stays);
    let (device, granted) = grant(&machine, &machine.store(StoreKind::MSIX), 3..=3);
    granted.unwrap();
    let more = device.allocate(Shape::Independent, 2..=2).unwrap();
    assert_eq!(more.iter().map(|vector| vector.slot).collect::<Vec<_>>(), [3, 4]);
    assert_eq!(device.vectors().unwrap().len(), 5);
}

#[test]
fn a_narrow_endpoint_is_placed_within_reach_or_refused() {
    let machine = Machine::new(Addressing::NamesCpuFarApart);
    let narrow = machine.store(StoreKind { address_bits: 32, ..StoreKind::MSIX });
    let (device, granted) = grant(&machine, &narrow, 8..=8);
    assert!(granted.unwrap().iter().all(|vector| vector.cpu == Cpu::new(0)));
    drop(device);
    machine.interrupts.offline(Cpu::new(0)).unwrap();
    let (_device, granted) = grant(&machine, &narrow, 8..=8);
    assert!(matches!(refusal(granted), MsiError::AddressTooWide { bits: 32, .. }));
    assert_eq!(machine.controller.vectors_in_use(), 0);
}

#[test]
fn a_misaligned_group_from_the_controller_is_refused() {
    let machine = Machine::new(Addressing::NamesCpu);
    machine.controller.skew.store(1, Ordering::Relaxed);
    let (_device, granted) = grant(&machine, &machine.store(StoreKind::MSI), 4..=4);
    assert_eq!(granted, Err(MsiDeviceError::Misaligned { data: FIRST + 1, count: 4 }));
    assert_eq!(machine.controller.vectors_in_use(), 0);
}

#[test]
fn a_cpu_taken_offline_during_placement_keeps_no_vector() {
    let machine = Machine::new(Addressing::NamesCpu);
    let interrupts = machine.interrupts.clone();
    let (placing, heard) = channel();
    let (wait, waits) = channel();
    let offline = std::thread::spawn(move || {
        heard.recv().unwrap();
        let waits = wait.clone();
        let stranded =
            on_wait(move || _ = waits.send(()), || interrupts.offline(Cpu::new(0)).unwrap());
        // Unblock the placement even if this thread never waited.
        let _ = wait.send(());
        stranded
    });
    *machine.controller.meanwhile.lock().unwrap() = Some(Hook(Box::new(move || {
        placing.send(()).unwrap();
        waits.recv().unwrap();
    })));
    let (device, granted) = grant(&machine, &machine.store(StoreKind::MSIX), 8..=8);
    granted.unwrap();
    assert_eq!(offline.join().unwrap(), []);
    assert!(device.vectors().unwrap().iter().all(|vector| vector.cpu != Cpu::new(0)));
}

#[test]
fn a_store_without_slots_is_refused() {
    let machine = Machine::new(Addressing::Stays);
    let store = machine.store(StoreKind { slots: 0, ..StoreKind::MSIX });
    let refused = machine.try_attach(&store).err();
    assert_eq!(refused, Some(MsiDeviceError::TooFewSlots { free: 0, wanted: 1 }));
}

/// Operations of a driver, and faults that affect the next operation.
#[derive(Clone, Debug)]
enum Step {
    Allocate { min: u16, more: u16 },
    Request { slot: u16 },
    Drop { slot: u16 },
    Disable { slot: u16 },
    Enable { slot: u16 },
    Fire { slot: u16 },
    Settle,
    Move { slot: u16, cpu: u32 },
    Offline { cpu: u32 },
    Online { cpu: u32 },
    ControllerFails { after: usize },
    StoreFails { after: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let slot = 0..8u16;
    let cpu = 0..CPUS;
    prop_oneof![
        2 => (1..5u16, 0..5u16).prop_map(|(min, more)| Step::Allocate { min, more }),
        3 => slot.clone().prop_map(|slot| Step::Request { slot }),
        1 => slot.clone().prop_map(|slot| Step::Drop { slot }),
        1 => slot.clone().prop_map(|slot| Step::Disable { slot }),
        1 => slot.clone().prop_map(|slot| Step::Enable { slot }),
        4 => slot.clone().prop_map(|slot| Step::Fire { slot }),
        2 => Just(Step::Settle),
        3 => (slot, cpu.clone()).prop_map(|(slot, cpu)| Step::Move { slot, cpu }),
        1 => (1..CPUS).prop_map(|cpu| Step::Offline { cpu }),
        1 => cpu.prop_map(|cpu| Step::Online { cpu }),
        1 => (0..6usize).prop_map(|after| Step::ControllerFails { after }),
        1 => (0..6usize).prop_map(|after| Step::StoreFails { after }),
    ]
}

/// A requested vector and its expected state.
struct Requested {
    handle: IrqHandle,
    /// The device's message count when the handler last ran.
    seen: Arc<AtomicU32>,
    disables: u32,
}

/// A driver with one device, and the expected state of its vectors.
struct Model {
    machine: Machine,
    store: Arc<Store>,
    device: MsiDevice,
    requested: BTreeMap<u16, Requested>,
    sent: Vec<Arc<AtomicU32>>,
}

impl Model {
    fn new(controller: Addressing, store: StoreKind) -> Self {
        let machine = Machine::with_controller(Controller::with_capacity(controller, 11));
        let store_ = machine.store(store);
        let device = machine.attach(&store_);
        let sent = (0..8).map(|_| Arc::default()).collect();
        Self { machine, store: store_, device, requested: BTreeMap::new(), sent }
    }

    fn has(&self, slot: u16) -> bool {
        self.device.vectors().unwrap().iter().any(|vector| vector.slot == slot)
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Allocate { min, more } => self.allocate(min..=min + more),
            Step::Request { slot } => self.request(slot),
            Step::Drop { slot } => drop(self.requested.remove(&slot)),
            Step::Disable { slot } => {
                if let Some(requested) = self.requested.get_mut(&slot) {
                    requested.handle.disable();
                    requested.disables += 1;
                }
            }
            Step::Enable { slot } => {
                if let Some(requested) = self.requested.get_mut(&slot) {
                    requested.handle.enable();
                    requested.disables = requested.disables.saturating_sub(1);
                }
            }
            Step::Fire { slot } => self.fire(slot),
            Step::Settle => self.settle(),
            Step::Move { slot, cpu } => self.relocate(slot, Cpu::new(cpu)),
            Step::Offline { cpu } => drop(self.machine.interrupts.offline(Cpu::new(cpu)).unwrap()),
            Step::Online { cpu } => {
                drop(self.machine.interrupts.bring_online(Cpu::new(cpu)).unwrap());
            }
            Step::ControllerFails { after } => {
                self.machine.controller.fail_in.store(after, Ordering::Relaxed);
            }
            Step::StoreFails { after } => self.store.fail_in.store(after, Ordering::Relaxed),
        }
        self.check();
    }

    fn allocate(&mut self, wanted: RangeInclusive<u16>) {
        let before = (self.device.vectors().unwrap(), self.machine.controller.vectors_in_use());
        if let Ok(granted) = self.device.allocate(self.store.kind.shape(), wanted.clone()) {
            assert!(wanted.contains(&u16::try_from(granted.len()).unwrap()));
            assert_eq!(self.device.vectors().unwrap().len(), before.0.len() + granted.len());
        } else {
            let in_use = self.machine.controller.vectors_in_use();
            assert_eq!((self.device.vectors().unwrap(), in_use), before);
        }
    }

    fn request(&mut self, slot: u16) {
        if self.requested.contains_key(&slot) {
            assert!(self.device.request(slot, "second", |_| {}).is_err());
            return;
        }
        let (seen, sent) = (Arc::new(AtomicU32::new(0)), self.sent[usize::from(slot)].clone());
        seen.store(sent.load(Ordering::SeqCst), Ordering::SeqCst);
        let note = seen.clone();
        let handler = move |_: &irq_domain::IrqContext<'_>| {
            note.store(sent.load(Ordering::SeqCst), Ordering::SeqCst);
        };
        if let Ok(handle) = self.device.request(slot, "test", handler) {
            self.requested.insert(slot, Requested { handle, seen, disables: 0 });
        } else {
            assert!(!self.has(slot));
        }
    }

    fn fire(&self, slot: u16) {
        if self.has(slot) {
            self.sent[usize::from(slot)].fetch_add(1, Ordering::SeqCst);
            self.store.fire(slot);
        }
    }

    /// Handles all pending interrupts, and checks that no message was lost.
    fn settle(&self) {
        self.machine.settle();
        for (slot, requested) in &self.requested {
            if requested.disables == 0 {
                let sent = self.sent[usize::from(*slot)].load(Ordering::SeqCst);
                let seen = requested.seen.load(Ordering::SeqCst);
                assert_eq!(seen, sent, "slot {slot} lost a message");
            }
        }
    }

    fn relocate(&self, slot: u16, to: Cpu) {
        let mut vectors = self.device.vectors().unwrap().into_iter();
        let Some(vector) = vectors.find(|vector| vector.slot == slot) else { return };
        let message = self.device.message(slot);
        let moved = self.machine.interrupts.set_affinity(vector.irq, to);
        let now = self.machine.interrupts.effective_affinity(vector.irq);
        assert_eq!(now, Some(moved.as_ref().map_or(vector.cpu, |moved| moved.to)));
        if moved.is_err() {
            assert_eq!(self.device.message(slot), message);
        }
    }

    /// Checks the invariants that hold after every step.
    fn check(&self) {
        let vectors = self.device.vectors().unwrap();
        assert_eq!(vectors.len(), self.machine.controller.vectors_in_use(), "leaked vectors");
        let snapshot = self.machine.interrupts.snapshot().unwrap();
        assert_eq!(snapshot.len(), vectors.len(), "leaked numbers");
        assert!(snapshot.iter().all(|info| info.irq.get() < 8), "numbers are not dense");
        for vector in &vectors {
            assert!((FIRST..FIRST + 11).contains(&vector.hwirq.get()));
            assert_eq!(self.device.message(vector.slot), self.store.message(vector.slot));
        }
        for slot in 0..8 {
            let granted = vectors.iter().any(|vector| vector.slot == slot);
            let requested = self.requested.get(&slot);
            let masked = match (self.store.kind.masking, self.store.kind.fast) {
                (Masking::None, _) => false,
                (Masking::PerVector, true) => {
                    requested.is_none_or(|requested| requested.disables > 0)
                }
                (Masking::PerVector, false) => !granted,
            };
            assert_eq!(self.store.is_masked(slot), masked, "slot {slot}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn random_drivers_lose_no_message_and_leak_no_vector(
        controller in prop::sample::select(&[
            Addressing::Stays,
            Addressing::NamesCpu,
            Addressing::NamesCpuFarApart,
        ]),
        store in prop::sample::select(&StoreKind::EDGES),
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut model = Model::new(controller, store);
        for step in &steps {
            model.run(step);
        }
        model.settle();
        let Model { machine, store, device, requested, .. } = model;
        drop(device);
        prop_assert_eq!(machine.controller.in_use(), (0, 0));
        prop_assert!(!store.enabled.load(Ordering::SeqCst));
        prop_assert!(machine.interrupts.snapshot().unwrap().is_empty());
        if store.kind.masking == Masking::PerVector {
            prop_assert!((0..8).all(|slot| store.is_masked(slot)));
        }
        drop(requested);
    }
}
