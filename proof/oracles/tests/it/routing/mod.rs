//! GSI routing on the GIC model, from eventfds, GSIs and MSI-X vectors to the interrupts that a
//! vCPU takes. Also tests KVM's routing tables, typed by hand from its header
//! (include/uapi/linux/kvm.h).
#![cfg(target_os = "linux")]

mod explain;
mod machine;

use irq_routing::irqfd::{EventfdPoller, IrqfdSet};
use irq_routing::kvm_table::{self, EntryError, TableError};
use irq_routing::msix::{MsixTable, Signaled};
use irq_routing::{Change, GsiSpace, Inputs, NotAPin, Pin, Route, Router, Routing, Sender};
use machine::{FRAME_SPIS, LPI, Machine, to_frame, to_its};
use msi_types::pci::msix::Control;
use msi_types::{Delivery, DeviceId, Gsi, Level, Line, MsiMessage, SetLine};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use vgic::{Sleep, Vgic};

/// The list of acknowledged interrupts if none is pending.
const NOTHING: [u64; 0] = [];

const NVME: DeviceId = DeviceId::new(0x108);
const MESSAGE: Gsi = Gsi::new(2000);
const WIRE: Gsi = Gsi::new(7);

fn router(machine: &Machine) -> Arc<Router> {
    let router = Router::new(GsiSpace::default(), machine.inputs()).unwrap();
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
fn signaling_a_gsi_delivers_the_lpi_of_its_event() {
    let mut machine = Machine::new();
    machine.map(NVME);
    let router = router(&machine);
    assert_eq!(router.signal(MESSAGE), Ok(Delivery::Pending));
    assert_eq!(machine.take_all(), [u64::from(LPI) + 9]);
}

#[test]
fn the_its_blocks_an_event_of_an_unmapped_device() {
    let mut machine = Machine::new();
    machine.map(NVME);
    let router = router(&machine);
    router.commit(&[Change::Set(MESSAGE, Route::to_its(DeviceId::new(0x109), to_its(9)))]).unwrap();
    assert_eq!(router.signal(MESSAGE), Ok(Delivery::Blocked));
    assert_eq!(machine.take_all(), NOTHING);
}

#[test]
fn the_its_blocks_a_message_without_a_device_id() {
    let mut machine = Machine::new();
    machine.map(NVME);
    let router = router(&machine);
    router.commit(&[Change::Set(MESSAGE, Route::to_doorbell(to_its(9)))]).unwrap();
    assert_eq!(router.signal(MESSAGE), Ok(Delivery::Blocked));
    assert_eq!(machine.take_all(), NOTHING);
}

#[test]
fn a_message_and_a_pin_reach_the_same_spi() {
    let mut machine = Machine::new();
    let spi = FRAME_SPIS.start + 3;
    machine.enable_spi(spi, true);
    let router = router(&machine);
    let pin = Route::Pin(Pin::of_spi(spi).unwrap());
    for route in [Route::to_doorbell(to_frame(spi)), Route::to_its(NVME, to_frame(spi)), pin] {
        router.commit(&[Change::Set(MESSAGE, route)]).unwrap();
        assert_eq!(router.signal(MESSAGE), Ok(Delivery::Pending), "{route:?}");
        assert_eq!(machine.take_all(), [u64::from(spi)], "{route:?}");
    }
}

/// An interrupt controller that runs a closure once, when a caller signals one of its inputs.
struct Interposed {
    gic: Arc<Vgic>,
    meanwhile: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Interposed {
    fn then(&self, delivery: Delivery) -> Delivery {
        let meanwhile = self.meanwhile.lock().unwrap().take();
        if let Some(meanwhile) = meanwhile {
            meanwhile();
        }
        delivery
    }
}

impl SetLine for Interposed {
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        self.then(self.gic.set_line(line, level))
    }

    fn pulse(&self, line: Line) -> Delivery {
        self.then(self.gic.pulse(line))
    }
}

/// Tests that no edge is lost if the guest takes the first edge and a second edge arrives before
/// the first sender's call returns.
#[test]
fn an_edge_during_another_senders_call_is_not_lost() {
    let machine = Machine::new();
    machine.enable_spi(40, true);
    let lines = Arc::new(Interposed { gic: machine.gic.clone(), meanwhile: Mutex::default() });
    let router = Router::new(GsiSpace::default(), Inputs::new(lines.clone())).unwrap();
    let router = Arc::new(router);
    router.commit(&[Change::Set(WIRE, Route::Pin(Pin::of_spi(40).unwrap()))]).unwrap();
    let machine = Arc::new(Mutex::new(machine));
    let (other, guest) = (router.clone(), machine.clone());
    *lines.meanwhile.lock().unwrap() = Some(Box::new(move || {
        assert_eq!(guest.lock().unwrap().acknowledge(0), 40);
        assert_eq!(other.signal(WIRE), Ok(Delivery::Pending));
    }));

    assert_eq!(router.signal(WIRE), Ok(Delivery::Pending));

    let mut machine = machine.lock().unwrap();
    machine.end(0, 40);
    assert_eq!(machine.take_all(), [40], "the second edge");
}

/// One device signals by GSI, the other by eventfd. Each device waits until the guest has seen its
/// number.
#[test]
fn concurrent_gsi_and_eventfd_edges_are_all_delivered() {
    const ROUNDS: u64 = 5_000;
    let mut machine = Machine::new();
    machine.enable_spi(40, true);
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

#[test]
fn irq_line_decodes_the_irq_numbers_of_kvm() {
    let mut machine = Machine::new();
    machine.enable_spi(40, false);
    machine.enable_private(0, 27);
    let router = router(&machine);
    for (number, intid) in [(0x0100_0028, 40), (0x0200_001b, 27)] {
        router.irq_line(number, Level::High).unwrap();
        assert_eq!(machine.acknowledge(0), intid);
        router.irq_line(number, Level::Low).unwrap();
        machine.end(0, intid);
        assert_eq!(machine.take_all(), NOTHING);
    }
}

#[test]
fn eventfd_wakes_a_sleeping_vcpu() {
    let mut machine = Machine::new();
    machine.map(NVME);
    let poller = EventfdPoller::new().unwrap();
    let irqfds = IrqfdSet::new(poller.clone(), router(&machine));
    let device = nonblocking();
    let _bound = irqfds.bind(device.clone(), MESSAGE).unwrap();
    let _serving = poller.spawn().unwrap();
    assert_eq!(machine.vcpus[0].prepare_to_sleep(), Sleep::Ready);

    signal(&device);

    let deadline = Instant::now() + Duration::from_secs(10);
    while machine.kicks.total() == 0 && Instant::now() < deadline {
        thread::yield_now();
    }
    machine.vcpus[0].returned();
    assert_eq!(machine.take_all(), [u64::from(LPI) + 9]);
    assert_eq!(machine.kicks.total(), 1);
}

/// A level is sampled again after each interrupt. If the level is still asserted, the interrupt is
/// delivered again; otherwise, it isn't.
#[test]
fn end_of_interrupt_resamples_a_level_eventfd() {
    let mut machine = Machine::new();
    machine.enable_spi(40, false);
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

#[test]
fn unbinding_a_level_eventfd_deasserts_its_line() {
    let mut machine = Machine::new();
    machine.enable_spi(40, false);
    let poller = EventfdPoller::new().unwrap();
    let irqfds = IrqfdSet::new(poller.clone(), router(&machine));
    machine.gic.observe_lines(irqfds.observer()).unwrap();
    let (device, resample) = (nonblocking(), nonblocking());
    let bound = irqfds.bind_level(device.clone(), resample.clone(), WIRE).unwrap();
    signal(&device);
    poller.dispatch(None).unwrap();

    drop(bound);

    assert_eq!(machine.acknowledge(0), 1023);
}

#[test]
fn unmasked_msix_vectors_become_lpis() {
    let mut machine = Machine::new();
    machine.map(NVME);
    let table = MsixTable::new(32, Sender::Device(NVME), router(&machine)).unwrap();
    table.write_control(Control::new().with_enable(true).with_function_mask(true));
    for vector in 0..32u32 {
        let entry = u64::from(vector) * 16;
        table.write(entry, &to_its(vector).address.to_le_bytes());
        table.write(entry + 8, &u64::from(vector).to_le_bytes());
    }
    assert_eq!(table.signal(5), Signaled::Held);
    assert_eq!(machine.take_all(), NOTHING);

    table.write_control(Control::new().with_enable(true));

    assert_eq!(machine.take_all(), [u64::from(LPI) + 5]);
    for vector in 0..32 {
        assert_eq!(table.signal(vector), Signaled::Sent(Delivery::Pending));
    }
    let mut taken = machine.take_all();
    taken.sort_unstable();
    assert_eq!(taken, (0..32).map(|event| u64::from(LPI) + event).collect::<Vec<_>>());
}

/// Routes change while devices send and the guest takes interrupts. The last message must still
/// arrive.
#[test]
fn changing_a_route_neither_loses_nor_tears_a_signal() {
    let mut machine = Machine::new();
    machine.map(NVME);
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
            machine.take_all();
        }
        sending.join().unwrap();
    });
    machine.take_all();
    router.commit(&[Change::Set(MESSAGE, route(30))]).unwrap();
    router.signal(MESSAGE).unwrap();
    assert_eq!(machine.take_all(), [u64::from(LPI) + 30]);
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
    let machine = Machine::new();
    let router = router(&machine);
    let before = router.routes();
    let header = [2u32.to_ne_bytes(), 0u32.to_ne_bytes()].concat();
    let table =
        [&header[..], &entry([1, 1, 0, 0, 0, 5, 0, 0]), &entry([2, 9, 0, 0, 0, 5, 0, 0])].concat();

    let refused = kvm_table::decode(&table).unwrap_err();

    assert_eq!(refused, TableError::Entry { index: 1, error: EntryError::Type(9) });
    assert_eq!(router.routes(), before);
}
