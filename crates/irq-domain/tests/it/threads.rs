//! Concurrent operations on real threads.

use crate::mock::{
    CPUS, Hotplug as _, Machine, Store, StoreKind, attached, combinations, in_hard_irq,
};
use irq_domain::{Dispatched, IrqHandle, MsiDevice, Unhandled};
use msi_types::Cpu;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;

const MESSAGES: u32 = 5_000;

/// A device with numbered messages, and the last number that each handler saw.
struct Device {
    store: Arc<Store>,
    domain: MsiDevice,
    sent: Vec<Arc<AtomicU32>>,
    seen: Vec<Arc<AtomicU32>>,
}

impl Device {
    fn new(machine: &Machine, kind: StoreKind) -> Self {
        let store = machine.store(kind);
        let domain = machine.attach(&store);
        domain.allocate(kind.shape(), 4..=4).unwrap();
        let numbers = || (0..4).map(|_| Arc::default()).collect();
        Self { store, domain, sent: numbers(), seen: numbers() }
    }

    /// Requests a handler that records the last number sent, and fails if it runs concurrently with
    /// itself.
    fn request(&self, slot: u16) -> IrqHandle {
        let (sent, seen) =
            (self.sent[usize::from(slot)].clone(), self.seen[usize::from(slot)].clone());
        let running = AtomicBool::new(false);
        let handler = move |_: &irq_domain::IrqContext<'_>| {
            assert!(!running.swap(true, Ordering::SeqCst), "ran concurrently with itself");
            seen.store(sent.load(Ordering::SeqCst), Ordering::SeqCst);
            thread::yield_now();
            running.store(false, Ordering::SeqCst);
        };
        self.domain.request(slot, "test", handler).unwrap()
    }

    fn fire(&self, slot: u16) {
        self.sent[usize::from(slot)].fetch_add(1, Ordering::SeqCst);
        self.store.fire(slot);
    }

    fn missed(&self) -> Vec<usize> {
        let saw_last = |slot: &usize| {
            self.sent[*slot].load(Ordering::SeqCst) == self.seen[*slot].load(Ordering::SeqCst)
        };
        (0..4).filter(|slot| !saw_last(slot)).collect()
    }
}

/// Runs the trap loops of all CPUs while `act` runs. Returns the number of arrivals at vectors that
/// never had a handler.
fn with_cpus(machine: &Machine, act: impl FnOnce()) -> u64 {
    let (stop, unknown) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for cpu in 0..CPUS {
            let (stop, unknown) = (&stop, &unknown);
            scope.spawn(move || {
                in_hard_irq(cpu, || {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(hwirq) = machine.controller.acknowledge(cpu) else {
                            thread::yield_now();
                            continue;
                        };
                        let done = machine.interrupts.dispatch(Cpu::new(cpu), hwirq);
                        if done == Dispatched::Unhandled(Unhandled::Unknown) {
                            unknown.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            });
        }
        act();
        stop.store(true, Ordering::Relaxed);
    });
    machine.settle();
    unknown.into_inner()
}

/// A small deterministic generator of pseudo-random numbers.
struct Numbers(u32);

impl Numbers {
    fn next(&mut self, below: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0 % below
    }
}

#[test]
fn moves_disables_and_cpu_hotplug_lose_no_message() {
    for (kind, store) in combinations() {
        let machine = Machine::new(kind);
        let device = Device::new(&machine, store);
        let handles: Vec<_> = (0..4).map(|slot| device.request(slot)).collect();
        let firing = AtomicU32::new(4);
        let unknown = with_cpus(&machine, || {
            thread::scope(|scope| {
                for slot in 0..4 {
                    let (device, firing) = (&device, &firing);
                    scope.spawn(move || {
                        (0..MESSAGES).for_each(|_| device.fire(slot));
                        firing.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                let mut numbers = Numbers(0x1234_5678);
                while firing.load(Ordering::Relaxed) > 0 {
                    let handle = &handles[numbers.next(4) as usize];
                    let cpu = Cpu::new(1 + numbers.next(CPUS - 1));
                    match numbers.next(8) {
                        0 => drop(machine.interrupts.offline(cpu).unwrap()),
                        1 => drop(machine.interrupts.bring_online(cpu).unwrap()),
                        2 => {
                            handle.disable();
                            handle.enable();
                        }
                        3 => {
                            handle.disable_and_wait();
                            handle.enable();
                        }
                        _ => drop(handle.set_affinity(cpu)),
                    }
                }
            });
        });
        assert_eq!(device.missed(), [0; 0], "{kind:?} {store:?}: lost");
        assert_eq!(unknown, 0, "{kind:?} {store:?}: spurious");
        let redelivered: u64 = handles.iter().map(IrqHandle::redelivered).sum();
        assert_eq!(redelivered, machine.interrupts.redelivered());
    }
}

#[test]
fn adding_and_removing_devices_loses_no_message() {
    for (kind, store) in combinations() {
        let machine = Machine::new(kind);
        let steady = Device::new(&machine, store);
        let kept: Vec<_> = (0..4).map(|slot| steady.request(slot)).collect();
        let unknown = with_cpus(&machine, || {
            thread::scope(|scope| {
                scope.spawn(|| {
                    (0..MESSAGES).for_each(|number| steady.fire((number % 4).try_into().unwrap()));
                });
                for _ in 0..100 {
                    let passing = Device::new(&machine, store);
                    let handles: Vec<_> = (0..4).map(|slot| passing.request(slot)).collect();
                    for round in 0..20u16 {
                        passing.fire(round % 4);
                    }
                    let mut handles = handles.into_iter();
                    drop(handles.next());
                    drop(passing.request(0));
                    // The remaining handles outlive the device.
                    drop(passing);
                }
            });
        });
        assert_eq!(steady.missed(), [0; 0], "{kind:?} {store:?}: lost");
        assert_eq!(unknown, 0, "{kind:?} {store:?}: spurious");
        assert_eq!(machine.controller.vectors_in_use(), 4);
        drop(kept);
    }
}

#[test]
fn after_a_move_only_the_new_cpu_receives_messages() {
    for (kind, store) in combinations() {
        let (machine, target, domain) = attached(kind, store, 1);
        let ran_on = Arc::new(AtomicU32::new(u32::MAX));
        let note = ran_on.clone();
        let handle = domain
            .request(0, "test", move |context| note.store(context.cpu().get(), Ordering::SeqCst))
            .unwrap();
        with_cpus(&machine, || {
            let mut numbers = Numbers(77);
            for _ in 0..200 {
                let to = numbers.next(CPUS);
                handle.set_affinity(Cpu::new(to)).unwrap();
                ran_on.store(u32::MAX, Ordering::SeqCst);
                target.fire(0);
                while ran_on.load(Ordering::SeqCst) == u32::MAX {
                    thread::yield_now();
                }
                assert_eq!(ran_on.load(Ordering::SeqCst), to, "{kind:?} {store:?}");
            }
        });
    }
}
