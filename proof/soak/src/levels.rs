//! Level-triggered eventfds with resample on shared pins, while GSIs move between pins.

use crate::guest::{self, Guest};
use crate::lifecycle;
use crate::outcome::Outcome;
use doorbell_test_support::guest::{Half, Interface, Kicks};
use fastrand::Rng;
use gic_arch::icc;
use irq_routing::irqfd::{EventfdPoller, Irqfd, IrqfdSet};
use irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing as _};
use msi_types::{Gsi, Level, Line, SetLine};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use vgic::{Sleep, Vcpu, VgicConfig};

const DEVICES: usize = 4;
const PINS: [u32; 4] = [40, 41, 42, 43];
/// Interval between two moves of GSIs.
const INTERVAL: Duration = Duration::from_micros(200);
/// Maximum time for a request to be served.
const PATIENCE: Duration = Duration::from_mins(1);

/// One device: its eventfds, and the numbers of its last request and of the last served one.
struct Device {
    trigger: Arc<OwnedFd>,
    resample: Arc<OwnedFd>,
    requested: AtomicU64,
    served: AtomicU64,
}

impl Device {
    fn new() -> Self {
        let open = || Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let (requested, served) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { trigger: open(), resample: open(), requested, served }
    }

    fn trigger(&self) {
        rustix::io::write(&self.trigger, &1_u64.to_ne_bytes()).unwrap();
    }

    /// Requests an interrupt, and waits until it has been served. If the interrupt ends before, the
    /// device signals again.
    fn request(&self, explain: impl Fn() -> String) {
        let number = self.requested.fetch_add(1, SeqCst) + 1;
        self.trigger();
        let start = Instant::now();
        while self.served.load(SeqCst) < number {
            let ended = rustix::io::read(&self.resample, &mut [0; 8]).is_ok();
            if ended && self.served.load(SeqCst) < number {
                self.trigger();
            }
            assert!(start.elapsed() < PATIENCE, "request {number} is not served:\n{}", explain());
            thread::yield_now();
        }
    }
}

struct Rig {
    guest: Guest,
    kicks: Arc<Kicks>,
    router: Arc<Router>,
    poller: Arc<EventfdPoller>,
    devices: Vec<Device>,
    binds: Vec<Irqfd>,
}

impl Rig {
    fn new() -> (Self, Vcpu) {
        let kicks = Arc::new(Kicks::new(1));
        let memory = guest::memory();
        let (gic, mut vcpus) = lifecycle::create(VgicConfig::new(1), &memory, kicks.clone());
        let guest = Guest::new(&gic, &memory);
        guest.start_wired();
        for pin in PINS {
            guest.enable(0, pin);
        }
        let mut vcpu = vcpus.remove(0);
        vcpu.write_sysreg(icc::PMR.encoding(), 0xff).unwrap();
        vcpu.write_sysreg(icc::IGRPEN1.encoding(), 1).unwrap();
        let router = Arc::new(Router::new(GsiSpace::default(), Inputs::new(gic.clone())).unwrap());
        let poller = EventfdPoller::new().unwrap();
        let irqfds = IrqfdSet::new(poller.clone(), router.clone());
        gic.observe_lines(irqfds.observer()).unwrap();
        let devices: Vec<_> = (0..DEVICES).map(|_| Device::new()).collect();
        let bind = |(device, gsi): (&Device, u32)| {
            commit(&router, gsi, PINS[gsi as usize % 2]);
            let resample = device.resample.clone();
            irqfds.bind_level(device.trigger.clone(), resample, Gsi::new(gsi)).unwrap()
        };
        let binds = devices.iter().zip(0..).map(bind).collect();
        (Self { guest, kicks, router, poller, devices, binds }, vcpu)
    }

    fn serve_all(&self) {
        for device in &self.devices {
            device.served.fetch_max(device.requested.load(SeqCst), SeqCst);
        }
    }

    fn explain(&self) -> String {
        let states = PINS.map(|pin| (pin, self.guest.state(0, pin)));
        format!("{states:?}\n{:#?}", self.guest.gic)
    }
}

fn commit(router: &Router, gsi: u32, spi: u32) {
    let route = Route::Pin(Pin::of_spi(spi).unwrap());
    router.commit(&[Change::Set(Gsi::new(gsi), route)]).unwrap();
}

/// Makes `messages` requests.
pub(crate) fn run(seed: u64, messages: u64) -> Outcome {
    let mut rng = Rng::with_seed(seed);
    let lists = [0, 1, 2, 4][rng.usize(..4)];
    let (mut rig, vcpu) = Rig::new();
    let kicked = rig.kicks.flag(0);
    let vcpu = match lists {
        0 => Half::Software(vcpu),
        _ => Half::lists(vcpu, lists, kicked),
    };
    let mut outcome = Outcome::new(format!("{lists} list registers"));
    let share = messages.div_ceil(DEVICES as u64);
    let (stop, handled) = (AtomicBool::new(false), AtomicU64::new(0));
    let threads = [rig.poller.spawn().unwrap(), rig.poller.spawn().unwrap()];
    thread::scope(|scope| {
        let (rig, stop, handled) = (&rig, &stop, &handled);
        let guest = scope.spawn(move || Program { rig, stop, handled }.run(vcpu));
        let devices: Vec<_> = rig
            .devices
            .iter()
            .map(|it| scope.spawn(move || (0..share).for_each(|_| it.request(|| rig.explain()))))
            .collect();
        while devices.iter().any(|device| !device.is_finished()) {
            outcome.count("moves", 1);
            let gsi = rng.u32(..4);
            commit(&rig.router, gsi, PINS[rng.usize(..PINS.len())]);
            thread::sleep(INTERVAL);
        }
        for device in devices {
            device.join().unwrap();
        }
        stop.store(true, SeqCst);
        rig.kicks.wake_all();
        guest.join().unwrap();
    });
    drop(threads);
    rig.binds.clear();
    for pin in PINS {
        // Without edges, an interrupt is pending only while its line is high.
        assert_eq!(rig.guest.state(0, pin).0, 0, "pin {pin} stays high:\n{}", rig.explain());
        rig.guest.gic.set_line(Line::Spi(pin), Level::Low);
    }
    outcome.messages = share * DEVICES as u64;
    outcome.count("handled", handled.load(SeqCst));
    outcome
}

/// The guest's interrupt handlers, on one vCPU.
struct Program<'a> {
    rig: &'a Rig,
    stop: &'a AtomicBool,
    handled: &'a AtomicU64,
}

impl Program<'_> {
    fn handle(&self) {
        self.handled.fetch_add(1, SeqCst);
        self.rig.serve_all();
    }

    fn run(&self, mut vcpu: Half) {
        while !self.stop.load(SeqCst) {
            let intid = vcpu.read_sysreg(icc::IAR1.encoding()).unwrap();
            if intid != 1023 {
                self.handle();
                vcpu.write_sysreg(icc::EOIR1.encoding(), intid).unwrap();
            } else if vcpu.prepare_to_sleep() == Sleep::Ready {
                self.rig.kicks.sleep(0, self.stop);
                vcpu.returned();
            }
        }
    }
}
