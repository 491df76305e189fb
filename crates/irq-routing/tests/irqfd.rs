//! Eventfds that ring GSIs, served by hand and by a thread.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod controller;

use controller::{Controller, Heard};
use irq_routing::irqfd::{IrqfdError, Irqfds};
use irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing};
use msi_types::{Delivery, DeviceId, Gsi, Level, Line, LineObserver, MsiMessage, SetLine, SignalMsi};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

const NOW: Option<Duration> = Some(Duration::ZERO);
const MESSAGE: Gsi = Gsi::new(5);
const LINE: Gsi = Gsi::new(6);

struct Rig {
    router: Arc<Router>,
    controller: Arc<Controller>,
    irqfds: Arc<Irqfds>,
}

impl Rig {
    /// GSI 5 is event 1 of device 1, GSI 6 is SPI 40.
    fn new() -> Self {
        let controller = Arc::new(Controller::default());
        let router = Arc::new(Router::new(GsiSpace::default(), controller.inputs()).unwrap());
        let irqfds = Irqfds::new(router.clone()).unwrap();
        let rig = Self { router, controller, irqfds };
        rig.route(MESSAGE, message(1));
        rig.route(LINE, spi(40));
        rig
    }

    fn route(&self, gsi: Gsi, route: Route) {
        self.router.commit(&[Change::Set(gsi, route)]).unwrap();
    }

    /// Serves what is signalled; what the controller heard of it.
    fn serve(&self) -> Vec<Heard> {
        while self.irqfds.dispatch(NOW).unwrap() > 0 {}
        self.controller.heard()
    }

    /// The guest is done with an SPI.
    fn end(&self, intid: u32) {
        self.irqfds.observer().deactivated(Line::Spi(intid));
    }

    /// Waits until the controller hears something, while threads serve.
    fn wait(&self) -> Vec<Heard> {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let heard = self.controller.heard();
            if !heard.is_empty() || Instant::now() > deadline {
                return heard;
            }
            thread::yield_now();
        }
    }
}

fn message(event: u32) -> Route {
    Route::to_its(DeviceId::new(1), MsiMessage { address: Controller::ITS, data: event })
}

fn spi(intid: u32) -> Route {
    Route::Pin(Pin::of_spi(intid).unwrap())
}

fn event(event: u32) -> Heard {
    Heard::Event(DeviceId::new(1), event)
}

fn line(intid: u32, level: Level) -> Heard {
    Heard::Line(Line::Spi(intid), level)
}

fn eventfd_with(flags: EventfdFlags) -> OwnedFd {
    eventfd(0, flags).unwrap()
}

fn nonblocking() -> OwnedFd {
    eventfd_with(EventfdFlags::NONBLOCK)
}

fn signal(eventfd: &OwnedFd) {
    rustix::io::write(eventfd, &1u64.to_ne_bytes()).unwrap();
}

/// Returns the number of signals since the eventfd was read.
fn count(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(eventfd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

#[test]
fn unserved_signals_merge_into_one_message() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(&device, MESSAGE).unwrap();
    assert_eq!(rig.serve(), []);

    signal(&device);
    signal(&device);

    assert_eq!(rig.serve(), [event(1)]);
    signal(&device);
    assert_eq!(rig.serve(), [event(1)]);
    assert_eq!(rig.serve(), []);
}

#[test]
fn a_signal_on_a_pin_is_an_edge() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(&device, LINE).unwrap();
    signal(&device);
    assert_eq!(rig.serve(), [Heard::Pulse(Line::Spi(40))]);
}

#[test]
fn a_signal_from_before_the_bind_counts() {
    let rig = Rig::new();
    let device = nonblocking();
    signal(&device);
    let _bound = rig.irqfds.bind(&device, MESSAGE).unwrap();
    assert_eq!(rig.serve(), [event(1)]);
}

#[test]
fn next_signal_takes_the_new_route() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(&device, MESSAGE).unwrap();
    for number in 2..5 {
        rig.route(MESSAGE, message(number));
        signal(&device);
        assert_eq!(rig.serve(), [event(number)]);
    }
}

#[test]
fn signal_without_a_route_is_lost() {
    let rig = Rig::new();
    let (device, other) = (nonblocking(), nonblocking());
    let _bound = [rig.irqfds.bind(&device, Gsi::new(77)).unwrap(), rig.irqfds.bind(&other, MESSAGE).unwrap()];
    signal(&device);
    signal(&other);
    assert_eq!(rig.serve(), [event(1)]);
    rig.route(Gsi::new(77), message(7));
    assert_eq!(rig.serve(), []);
}

#[test]
fn signals_after_unbind_stay_in_the_eventfd() {
    let rig = Rig::new();
    let device = nonblocking();
    let bound = rig.irqfds.bind(&device, MESSAGE).unwrap();
    drop(bound);
    signal(&device);
    assert_eq!(rig.serve(), []);
    assert_eq!(count(&device), 1);
}

#[test]
fn rebound_eventfd_signals_its_new_gsi_alone() {
    let rig = Rig::new();
    let device = nonblocking();
    drop(rig.irqfds.bind(&device, MESSAGE).unwrap());
    let _bound = rig.irqfds.bind(&device, LINE).unwrap();
    signal(&device);
    assert_eq!(rig.serve(), [Heard::Pulse(Line::Spi(40))]);
}

#[test]
fn an_eventfd_that_blocks_is_refused() {
    let rig = Rig::new();
    let refused = rig.irqfds.bind(eventfd_with(EventfdFlags::empty()), MESSAGE).unwrap_err();
    assert!(matches!(refused, IrqfdError::Blocking));
}

/// A full counter would stop the vCPU that ends an interrupt, and the other end can fill it.
#[test]
fn a_resample_eventfd_that_blocks_is_refused() {
    let rig = Rig::new();
    let resample = eventfd_with(EventfdFlags::empty());
    let refused = rig.irqfds.bind_level(nonblocking(), resample, LINE).unwrap_err();
    assert!(matches!(refused, IrqfdError::Blocking));
}

#[test]
fn closed_socket_signals_nothing() {
    let rig = Rig::new();
    let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let _bound = rig.irqfds.bind(&socket, MESSAGE).unwrap();
    drop(other);
    let served = [(); 3].map(|()| rig.irqfds.dispatch(NOW).unwrap());
    assert_eq!((served, rig.controller.heard()), ([0; 3], vec![]));
}

/// As `KVM_IRQFD`, which answers EBUSY.
#[test]
fn an_eventfd_is_bound_once_by_any_descriptor() {
    let rig = Rig::new();
    let (device, other) = (nonblocking(), nonblocking());
    let duplicate = device.try_clone().unwrap();
    let bound = rig.irqfds.bind(&device, MESSAGE).unwrap();
    for again in [&device, &duplicate] {
        let refused = rig.irqfds.bind(again, LINE);
        assert!(matches!(refused, Err(IrqfdError::AlreadyBound)), "{refused:?}");
        let refused = rig.irqfds.bind_level(again, &other, LINE);
        assert!(matches!(refused, Err(IrqfdError::AlreadyBound)), "{refused:?}");
    }
    let _other = rig.irqfds.bind(&other, LINE).unwrap();
    signal(&duplicate);
    assert_eq!(rig.serve(), [event(1)]);

    drop(bound);

    let _again = rig.irqfds.bind(&duplicate, LINE).unwrap();
    signal(&device);
    assert_eq!(rig.serve(), [Heard::Pulse(Line::Spi(40))]);
}

/// Kicks for event 1 block.
#[derive(Default)]
struct Slow {
    blocks: AtomicBool,
    rung: [AtomicU32; 3],
}

impl Slow {
    fn wait_until_rung(&self, event: usize, times: u32) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.rung[event].load(SeqCst) < times {
            assert!(Instant::now() < deadline, "event {event} was held up");
            thread::yield_now();
        }
    }
}

impl SignalMsi<DeviceId> for Slow {
    fn signal_msi(&self, _: DeviceId, message: MsiMessage) -> Delivery {
        self.rung[message.data as usize].fetch_add(1, SeqCst);
        while message.data == 1 && self.blocks.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        Delivery::Pending
    }
}

#[test]
fn an_irqfd_whose_kick_blocks_delays_no_other() {
    let slow = Arc::new(Slow { blocks: AtomicBool::new(true), ..Slow::default() });
    let inputs = Inputs::new(Arc::new(Controller::default())).with_its(slow.clone());
    let router = Arc::new(Router::new(GsiSpace::default(), inputs).unwrap());
    let gsis = [1, 2].map(|event| {
        let gsi = router.allocate().unwrap();
        router.commit(&[Change::Set(gsi, message(event))]).unwrap();
        gsi
    });
    let irqfds = Irqfds::new(router).unwrap();
    let _serving = [irqfds.spawn().unwrap(), irqfds.spawn().unwrap()];
    let devices = [nonblocking(), nonblocking()];
    let _bound = [0, 1].map(|at| irqfds.bind(&devices[at], gsis[at]).unwrap());

    signal(&devices[0]);
    slow.wait_until_rung(1, 1);
    for time in 1..=3 {
        signal(&devices[0]);
        signal(&devices[1]);
        slow.wait_until_rung(2, time);
    }
    drop(irqfds.bind(nonblocking(), gsis[0]).unwrap());
    assert_eq!(slow.rung[1].load(SeqCst), 1, "one thread at a time");

    slow.blocks.store(false, SeqCst);

    slow.wait_until_rung(1, 2);
}

#[test]
fn what_cannot_be_waited_for_is_refused() {
    let rig = Rig::new();
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK).unwrap();
    assert!(matches!(rig.irqfds.bind(&file, MESSAGE), Err(IrqfdError::System(_))));
}

#[test]
fn level_resamples_at_end_of_interrupt() {
    let rig = Rig::new();
    let (device, resample) = (nonblocking(), nonblocking());
    let _bound = rig.irqfds.bind_level(&device, &resample, LINE).unwrap();
    signal(&device);
    assert_eq!(rig.serve(), [line(40, Level::High)]);
    assert_eq!(count(&resample), 0);

    rig.end(41);
    assert_eq!((rig.controller.heard(), count(&resample)), (vec![], 0));
    rig.end(40);

    assert_eq!((rig.controller.heard(), count(&resample)), (vec![line(40, Level::Low)], 1));
    rig.end(40);
    assert_eq!((rig.controller.heard(), count(&resample)), (vec![], 0));
}

#[test]
fn shared_line_resamples_all_devices() {
    let rig = Rig::new();
    let devices = [nonblocking(), nonblocking()];
    let resamples = [nonblocking(), nonblocking()];
    let bound = [0, 1].map(|at| rig.irqfds.bind_level(&devices[at], &resamples[at], LINE).unwrap());
    devices.iter().for_each(signal);
    assert_eq!(rig.serve(), [line(40, Level::High); 2]);

    rig.end(40);

    assert_eq!(rig.controller.heard(), [line(40, Level::Low)]);
    assert_eq!(resamples.each_ref().map(count), [1, 1]);
    drop(bound);
    assert_eq!(rig.controller.heard(), []);
}

#[test]
fn unbind_lowers_a_line_held_alone() {
    let rig = Rig::new();
    let devices = [nonblocking(), nonblocking()];
    let resample = nonblocking();
    let [one, other] = [0, 1].map(|at| rig.irqfds.bind_level(&devices[at], &resample, LINE).unwrap());
    devices.iter().for_each(signal);
    rig.serve();

    drop(one);
    assert_eq!(rig.controller.heard(), []);
    drop(other);
    assert_eq!(rig.controller.heard(), [line(40, Level::Low)]);
}

#[test]
fn rerouted_level_leaves_no_line_high() {
    let rig = Rig::new();
    let (device, resample) = (nonblocking(), nonblocking());
    let _bound = rig.irqfds.bind_level(&device, &resample, LINE).unwrap();
    signal(&device);
    rig.serve();
    rig.route(LINE, spi(50));
    signal(&device);
    assert_eq!(rig.serve(), [line(40, Level::Low), line(50, Level::High)]);
    rig.route(LINE, message(3));
    signal(&device);
    let mut heard = rig.serve();
    heard.sort_by_key(|heard| matches!(heard, Heard::Line(..)));
    assert_eq!(heard, [event(3), line(50, Level::Low)]);
}

/// An interrupt controller keeps its observer as long as it lives, and the observer's routes lead to it.
#[derive(Default)]
struct Observed(OnceLock<Arc<dyn LineObserver>>);

impl SetLine for Observed {
    fn set_line(&self, _: Line, _: Level) -> Delivery {
        Delivery::Pending
    }

    fn pulse(&self, _: Line) -> Delivery {
        Delivery::Pending
    }
}

#[test]
fn observed_controller_ends_with_its_machine() {
    let controller = Arc::new(Observed::default());
    let router = Router::new(GsiSpace::default(), Inputs::new(controller.clone())).unwrap();
    let irqfds = Irqfds::new(Arc::new(router)).unwrap();
    assert!(controller.0.set(irqfds.observer()).is_ok());
    let machine = Arc::downgrade(&controller);

    drop((controller, irqfds));

    assert!(machine.upgrade().is_none());
}

#[test]
fn event_loop_sees_pending_work() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(&device, MESSAGE).unwrap();
    let is_readable = || {
        let mut waited = [PollFd::new(&*rig.irqfds, PollFlags::IN)];
        poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    assert!(!is_readable());
    signal(&device);
    assert!(is_readable());
    rig.serve();
    assert!(!is_readable());
    assert!(rig.irqfds.as_fd().try_clone_to_owned().is_ok());
}

#[test]
fn a_thread_serves_until_it_is_dropped() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(&device, MESSAGE).unwrap();
    let serving = rig.irqfds.spawn().unwrap();
    signal(&device);
    assert_eq!(rig.wait(), [event(1)]);

    drop(serving);

    signal(&device);
    thread::sleep(Duration::from_millis(5));
    assert_eq!(rig.controller.heard(), []);
    assert_eq!(rig.serve(), [event(1)]);
}

/// An eventfd that is bound no more is never signalled for, with two threads serving.
#[test]
fn nothing_is_rung_once_a_bind_has_ended() {
    let rig = Rig::new();
    let _serving = [rig.irqfds.spawn().unwrap(), rig.irqfds.spawn().unwrap()];
    let device = nonblocking();
    for _ in 0..300 {
        let bound = rig.irqfds.bind(&device, MESSAGE).unwrap();
        signal(&device);
        assert_eq!(rig.wait(), [event(1)]);
        for _ in 0..4 {
            signal(&device);
            thread::yield_now();
        }
        drop(bound);
        rig.controller.heard();
        signal(&device);
        thread::yield_now();
        assert_eq!(rig.controller.heard(), []);
        assert!(count(&device) > 0);
    }
}
