//! GSI routing on the GIC model, from eventfds, GSIs and MSI-X vectors to the interrupts that a
//! vCPU takes. Also tests KVM's routing tables, typed by hand from its header
//! (include/uapi/linux/kvm.h).
#![cfg(target_os = "linux")]

mod machine;

use doorbell_test_support::guest::Machine;
use irq_routing::irqfd::{EventfdPoller, IrqfdSet};
use irq_routing::kvm_table::{self, EntryError, TableError};
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::{Change, GsiSpace, NotAPin, Pin, Route, Router, Routing, Sender};
use machine::{LPI, inputs, machine, map, take_all, to_its};
use msi_types::explain::{Fact, Obstacle, TargetState};
use msi_types::pci::msix::Control;
use msi_types::{Cpu, Delivery, DeviceId, EventId, Gsi, HwIrq, MsiMessage};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const NVME: DeviceId = DeviceId::new(0x108);
const MESSAGE: Gsi = Gsi::new(2000);
const WIRE: Gsi = Gsi::new(7);

fn router(machine: &Machine) -> Arc<Router> {
    let router = Router::new(GsiSpace::default(), inputs(machine)).unwrap();
    router
        .commit(&[
            Change::Set(MESSAGE, Route::to_its(NVME, to_its(9))),
            Change::Set(WIRE, Route::Pin(Pin::of_spi(40).unwrap())),
        ])
        .unwrap();
    Arc::new(router)
}

fn nonblocking() -> Arc<OwnedFd> {
    Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap())
}

fn signal(eventfd: &OwnedFd) {
    rustix::io::write(eventfd, &1u64.to_ne_bytes()).unwrap();
}

fn is_signaled(eventfd: &OwnedFd) -> bool {
    rustix::io::read(eventfd, &mut [0; 8]).is_ok()
}

#[test]
fn the_its_blocks_an_event_of_an_unmapped_device() {
    let mut machine = machine();
    map(&machine, NVME);
    let router = router(&machine);
    assert_eq!(router.signal(MESSAGE), Ok(Delivery::Pending));
    assert_eq!(take_all(&mut machine), [u64::from(LPI) + 9]);

    let unmapped = Route::to_its(DeviceId::new(0x109), to_its(9));
    for route in [unmapped, Route::to_doorbell(to_its(9))] {
        router.commit(&[Change::Set(MESSAGE, route)]).unwrap();
        assert_eq!(router.signal(MESSAGE), Ok(Delivery::Blocked), "{route:?}");
    }
    assert!(take_all(&mut machine).is_empty());
}

/// One device signals by GSI, the other by eventfd. Each device waits until the guest has seen its
/// number.
#[test]
fn concurrent_gsi_and_eventfd_edges_are_all_delivered() {
    const ROUNDS: u64 = 5_000;
    let mut machine = machine();
    machine.make_edge(40);
    machine.enable_spi(40);
    let router = router(&machine);
    let poller = EventfdPoller::new().unwrap();
    let irqfds = IrqfdSet::new(poller.clone(), router.clone());
    let eventfd = nonblocking();
    let _bound = irqfds.bind(eventfd.clone(), WIRE).unwrap();
    let _serving = poller.spawn().unwrap();
    let rings: [&(dyn Fn() + Sync); 2] =
        [&|| assert!(router.signal(WIRE).is_ok()), &|| signal(&eventfd)];
    let zero = || [AtomicU64::new(0), AtomicU64::new(0)];
    let (sent, seen) = (&zero(), &zero());
    thread::scope(|scope| {
        for (device, ring) in rings.into_iter().enumerate() {
            scope.spawn(move || {
                for number in 1..=ROUNDS {
                    sent[device].store(number, Ordering::SeqCst);
                    ring();
                    while seen[device].load(Ordering::SeqCst) < number {
                        thread::yield_now();
                    }
                }
            });
        }
        let mut last = Instant::now();
        while seen.iter().any(|seen| seen.load(Ordering::SeqCst) < ROUNDS) {
            if machine.acknowledge(0) == 40 {
                for (sent, seen) in sent.iter().zip(seen) {
                    seen.store(sent.load(Ordering::SeqCst), Ordering::SeqCst);
                }
                machine.end(0, 40);
                last = Instant::now();
            } else if last.elapsed() > Duration::from_secs(20) {
                for seen in seen {
                    seen.store(u64::MAX, Ordering::SeqCst);
                }
                panic!("an edge was lost");
            } else {
                thread::yield_now();
            }
        }
    });
}

/// A level is sampled again after each interrupt. If the level is still asserted, the interrupt is
/// delivered again; otherwise, it isn't.
#[test]
fn end_of_interrupt_resamples_a_level_eventfd() {
    let mut machine = machine();
    machine.enable_spi(40);
    let poller = EventfdPoller::new().unwrap();
    let irqfds = IrqfdSet::new(poller.clone(), router(&machine));
    machine.gic.observe_lines(irqfds.observer()).unwrap();
    let (device, resample) = (nonblocking(), nonblocking());
    let _bound = irqfds.bind_level(device.clone(), resample.clone(), WIRE).unwrap();

    for _ in 0..3 {
        signal(&device);
        assert_eq!(poller.dispatch(None).unwrap(), 1);
        assert_eq!(machine.acknowledge(0), 40);
        assert!(!is_signaled(&resample), "the guest has not ended the interrupt");
        machine.end(0, 40);
        assert!(is_signaled(&resample));
    }

    assert_eq!(machine.acknowledge(0), 1023, "the device has not signaled again");
}

/// Routes change while devices send and the guest takes interrupts. The last message must still
/// arrive.
#[test]
fn changing_a_route_neither_loses_nor_tears_a_signal() {
    let mut machine = machine();
    map(&machine, NVME);
    let router = router(&machine);
    let route = |event| Route::to_its(NVME, to_its(event));
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            for _ in 0..20_000 {
                // A mixture of two routes would be blocked, because its event, device or doorbell
                // doesn't exist.
                assert_eq!(router.signal(MESSAGE), Ok(Delivery::Pending));
            }
        });
        let mut round = 0;
        while !sending.is_finished() {
            router.commit(&[Change::Set(MESSAGE, route(round % 32))]).unwrap();
            round += 1;
            take_all(&mut machine);
        }
        sending.join().unwrap();
    });
    take_all(&mut machine);
    router.commit(&[Change::Set(MESSAGE, route(30))]).unwrap();
    router.signal(MESSAGE).unwrap();
    assert_eq!(take_all(&mut machine), [u64::from(LPI) + 30]);
}

/// The explanation follows the vector along its route into the model of the controller.
#[test]
fn a_vector_is_explained_up_to_its_cpu() {
    let mut machine = machine();
    map(&machine, NVME);
    let table = table(&machine, Sender::Device(NVME));
    assert_eq!(table.signal(0), Signaled::Sent(Delivery::Pending));
    let explanation = table.explain(0);
    assert_eq!(explanation.obstacle(), None);
    let interrupt = HwIrq::new(LPI + 9);
    let expected = [
        Fact::Message(to_its(9)),
        Fact::Doorbell(to_its(9).address),
        Fact::Event { device: NVME, event: EventId::new(9), interrupt },
        Fact::Enabled(0xa0),
        Fact::Pending(interrupt),
        Fact::Target(Cpu::new(0), TargetState::InMonitor),
        Fact::Signaled(Cpu::new(0)),
    ];
    assert!(explanation.facts().eq(expected));
    assert_eq!(take_all(&mut machine), [u64::from(LPI) + 9]);
    assert!(table.explain(0).is_idle());
}

#[test]
fn an_explanation_names_a_wrong_device_id() {
    let machine = machine();
    map(&machine, NVME);
    let (address, device) = (to_its(9).address, DeviceId::new(0));
    for (sender, obstacle) in [
        // The monitor doesn't set KVM_MSI_VALID_DEVID:
        // https://github.com/microsoft/openvmm/pull/3441
        (Sender::Anonymous, Obstacle::NoIdentity { address }),
        // The monitor does not set the function's address:
        // https://github.com/cloud-hypervisor/cloud-hypervisor/issues/3495
        (Sender::Device(device), Obstacle::UnmappedDevice { device, mapped: 1 }),
    ] {
        assert_eq!(table(&machine, sender).explain(0).obstacle(), Some(obstacle));
    }
}

/// Returns a table whose vector 0 sends event 9.
fn table(machine: &Machine, sender: Sender) -> MsixTable {
    let table = MsixTable::new(1, sender, router(machine)).unwrap();
    table.write(0, &to_its(9).address.to_le_bytes());
    table.write(8, &u64::from(to_its(9).data).to_le_bytes());
    table.write_control(Control::new().with_enable(true));
    table
}

/// Returns an entry of `struct kvm_irq_routing_entry`, word by word.
fn entry(words: [u32; 8]) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes
        .chunks_exact_mut(4)
        .zip(words)
        .for_each(|(place, word)| place.copy_from_slice(&word.to_ne_bytes()));
    bytes
}

#[test]
fn routing_entries_match_the_kvm_abi() {
    let pin = Route::Pin(Pin::new(5).unwrap());
    let message = MsiMessage { address: 0x0000_0001_0809_0040, data: 0x2a };
    for (words, gsi, route) in [
        // gsi, type, flags, pad, irqchip, pin
        ([37, 1, 0, 0, 0, 5, 0, 0], 37, pin),
        // gsi, type, flags, pad, address_lo, address_hi, data, devid
        ([4095, 2, 1, 0, 0x0809_0040, 1, 0x2a, 0x108], 4095, Route::to_its(NVME, message)),
        ([0, 2, 0, 0, 0x0809_0040, 1, 0x2a, 0], 0, Route::to_doorbell(message)),
    ] {
        assert_eq!(kvm_table::encode_entry(Gsi::new(gsi), route), entry(words));
        assert_eq!(kvm_table::decode_entry(&entry(words)), Ok((Gsi::new(gsi), route)));
    }
}

#[test]
fn entries_of_other_architectures_are_refused() {
    for (words, reason) in [
        ([1, 0, 0, 0, 0, 5, 0, 0], EntryError::Type(0)),
        // S390 adapter, Hyper-V, Xen
        ([1, 3, 0, 0, 0, 5, 0, 0], EntryError::Type(3)),
        ([1, 4, 0, 0, 0, 5, 0, 0], EntryError::Type(4)),
        ([1, 5, 0, 0, 0, 5, 0, 0], EntryError::Type(5)),
        // The I/O APIC
        ([1, 1, 0, 0, 2, 5, 0, 0], EntryError::Irqchip(2)),
        ([1, 1, 0, 0, 0, 988, 0, 0], EntryError::Pin(NotAPin(988))),
        ([1, 1, 1, 0, 0, 5, 0, 0], EntryError::Flags { kind: 1, flags: 1 }),
        ([1, 2, 2, 0, 0, 5, 0, 0], EntryError::Flags { kind: 2, flags: 2 }),
    ] {
        assert_eq!(kvm_table::decode_entry(&entry(words)), Err(reason));
    }
}

#[test]
fn an_invalid_entry_refuses_the_whole_routing_table() {
    let header = [2u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    let entries = [entry([1, 1, 0, 0, 0, 5, 0, 0]), entry([2, 9, 0, 0, 0, 5, 0, 0])];
    let refused = kvm_table::decode(&[&header, entries.as_flattened()].concat()).unwrap_err();
    assert_eq!(refused, TableError::Entry { index: 1, error: EntryError::Type(9) });
}
