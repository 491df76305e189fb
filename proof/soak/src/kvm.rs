//! Sends signals and messages through the routes of the host's KVM while the routes move and
//! eventfds are unbound and bound again. No guest runs: the local APICs of two vCPUs show which
//! vectors have arrived. A local APIC merges interrupts of the same vector, so a signal that is
//! injected twice at the same destination is not detected.

use crate::outcome::Outcome;
use doorbell_test_support::kvm::{enable, take_arrived};
use fastrand::Rng;
use irq_routing::kvm::{KvmConfig, KvmIrqfd, KvmRouter, RustVmm};
use irq_routing::{Change, MessageSink as _, Route, RoutedMessage, Routing as _, Sender};
use kvm_ioctls::{Kvm, VcpuFd};
use msi_types::{Delivery, Gsi, MsiMessage};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

/// Number of local APICs, whose IDs begin at 0.
const CPUS: u32 = 2;
const DEVICES: usize = 8;
/// Lower GSIs belong to the I/O APIC.
const FIRST_GSI: u32 = 24;
/// Each device has its own vectors, so that a vector names the device.
const FIRST_VECTOR: u32 = 0x30;
const VECTORS: u32 = 16;
/// Vector of messages that are sent without a route.
const UNROUTED: u32 = 0xf0;
/// Maximum time for a signal to arrive. If an eventfd was signaled before it was bound, a kernel
/// thread injects the interrupt later.
const PATIENCE: Duration = Duration::from_mins(1);

/// A local APIC and a vector.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    cpu: u32,
    vector: u32,
}

impl Place {
    /// Returns the place of a device after a number of moves.
    fn of(device: usize, moves: u64) -> Self {
        let device = u32::try_from(device).unwrap();
        let step = u32::try_from(moves % u64::from(CPUS * VECTORS)).unwrap();
        Self { cpu: step % CPUS, vector: FIRST_VECTOR + device * VECTORS + step / CPUS }
    }

    /// Returns the message, in the format of the Intel SDM, "Message Signaled Interrupts".
    fn message(self) -> MsiMessage {
        MsiMessage { address: 0xfee0_0000 | u64::from(self.cpu) << 12, data: self.vector }
    }
}

/// A device's route.
struct Line {
    gsi: Gsi,
    /// Twice the number of moves, plus one during a move.
    version: AtomicU64,
}

struct Rig {
    router: Arc<KvmRouter>,
    vcpus: Vec<VcpuFd>,
    lines: Vec<Line>,
}

impl Rig {
    fn new() -> Self {
        let vm = Arc::new(Kvm::new().unwrap().create_vm().unwrap());
        vm.create_irq_chip().unwrap();
        let vcpus: Vec<_> = (0..CPUS).map(|cpu| vm.create_vcpu(cpu.into()).unwrap()).collect();
        for vcpu in &vcpus {
            enable(vcpu).unwrap();
        }
        let router = Arc::new(KvmRouter::new(RustVmm(vm), KvmConfig::new(FIRST_GSI)).unwrap());
        let line = |device| {
            let gsi = router.allocate().unwrap();
            route(&router, gsi, Place::of(device, 0));
            Line { gsi, version: AtomicU64::new(0) }
        };
        let lines = (0..DEVICES).map(line).collect();
        Self { router, vcpus, lines }
    }

    /// Takes what has arrived.
    fn arrived(&self) -> Vec<Place> {
        let of = |(vcpu, cpu)| {
            let vectors = take_arrived(vcpu).unwrap();
            vectors.into_iter().map(move |vector| Place { cpu, vector })
        };
        self.vcpus.iter().zip(0..).flat_map(of).collect()
    }

    /// Waits for an interrupt. No other vector may arrive with it.
    fn take_one(&self, from: &str) -> Place {
        let start = Instant::now();
        loop {
            match self.arrived()[..] {
                [] => assert!(start.elapsed() < PATIENCE, "nothing arrives from {from}"),
                [place] => return place,
                ref several => panic!("{several:x?} arrive from {from}"),
            }
            thread::yield_now();
        }
    }

    /// Sends a signal, and checks that it arrives at exactly one of the destinations that the
    /// device's route had in the meantime.
    fn judge(&self, device: usize, from: &str, send: impl FnOnce()) {
        let version = &self.lines[device].version;
        let before = version.load(SeqCst) / 2;
        send();
        let place = self.take_one(from);
        let after = version.load(SeqCst).div_ceil(2);
        let is_right = (before..=after).rev().take((CPUS * VECTORS) as usize);
        assert!(
            is_right.map(|moves| Place::of(device, moves)).any(|right| right == place),
            "device {device} arrives at {place:x?} from {from}, between moves {before} and {after}"
        );
    }

    /// Moves routes until `stop` is set, and returns the number of moves.
    fn move_routes(&self, stop: &AtomicBool, mut rng: Rng) -> u64 {
        let mut moves = 0;
        while !stop.load(SeqCst) {
            let device = rng.usize(..DEVICES);
            let Line { gsi, version } = &self.lines[device];
            let next = version.fetch_add(1, SeqCst) / 2 + 1;
            route(&self.router, *gsi, Place::of(device, next));
            version.fetch_add(1, SeqCst);
            moves += 1;
        }
        moves
    }
}

fn route(router: &KvmRouter, gsi: Gsi, place: Place) {
    router.commit(&[Change::Set(gsi, Route::to_doorbell(place.message()))]).unwrap();
}

/// A device's eventfd.
struct Device {
    trigger: Arc<OwnedFd>,
    bound: Option<KvmIrqfd<Arc<OwnedFd>>>,
}

impl Device {
    fn new(router: &KvmRouter, gsi: Gsi) -> Self {
        let mut device =
            Self { trigger: Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap()), bound: None };
        device.bind(router, gsi);
        device
    }

    fn bind(&mut self, router: &KvmRouter, gsi: Gsi) {
        self.bound = Some(router.bind(self.trigger.clone(), gsi).unwrap());
    }

    fn trigger(&self) {
        rustix::io::write(&self.trigger, &1_u64.to_ne_bytes()).unwrap();
    }
}

/// Sends `messages` signals.
pub(crate) fn run(seed: u64, messages: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let rig = Rig::new();
    let mut devices: Vec<_> =
        rig.lines.iter().map(|line| Device::new(&rig.router, line.gsi)).collect();
    let mut outcome = Outcome { messages, ..Outcome::default() };
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let (fork, rig, stop) = (rng.fork(), &rig, &stop);
        let moves = scope.spawn(move || rig.move_routes(stop, fork));
        for _ in 0..messages {
            let number = rng.usize(..DEVICES);
            let (gsi, device) = (rig.lines[number].gsi, &mut devices[number]);
            match rng.u8(..32) {
                0 => {
                    outcome.count("bound again", 1);
                    device.bound = None;
                    device.trigger();
                    assert_eq!(rig.arrived(), [], "an eventfd that is not bound");
                    rig.judge(number, "an eventfd before it was bound", || {
                        device.bind(&rig.router, gsi);
                    });
                }
                1..=3 => {
                    outcome.count("by number", 1);
                    rig.judge(number, "a GSI", || {
                        assert_eq!(rig.router.signal(gsi), Ok(Delivery::Pending));
                    });
                }
                4 => {
                    outcome.count("without a route", 1);
                    let place = Place { cpu: rng.u32(..CPUS), vector: UNROUTED };
                    let (sender, message) = (Sender::Anonymous, place.message());
                    let sent = rig.router.signal_msi(RoutedMessage { sender, message });
                    assert_eq!(sent, Ok(Delivery::Pending));
                    assert_eq!(rig.take_one("a message"), place);
                }
                _ => rig.judge(number, "an eventfd", || device.trigger()),
            }
        }
        stop.store(true, SeqCst);
        outcome.count("moves", moves.join().unwrap());
    });
    drop(devices);
    assert_eq!(rig.arrived(), [], "after all eventfds");
    outcome
}
