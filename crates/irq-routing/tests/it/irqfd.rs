//! Eventfds that signal GSIs, served by explicit calls and by a thread.
#![cfg(target_os = "linux")]

use crate::controller::{Controller, Heard};
use irq_routing::irqfd::{EventfdPoller, IrqfdError, IrqfdSet};
use irq_routing::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing, Unsettled};
use msi_types::{
    Delivery, DeviceId, Gsi, Level, Line, LineObserver, MsiMessage, SetLine, SignalMsi,
};
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
    poller: Arc<EventfdPoller>,
    irqfds: Arc<IrqfdSet>,
}

impl Rig {
    /// Creates a rig in which GSI 5 is routed to event 1 of device 1, and GSI 6 to SPI 40.
    fn new() -> Self {
        let controller = Arc::new(Controller::default());
        let router = Arc::new(Router::new(GsiSpace::default(), controller.inputs()).unwrap());
        let poller = EventfdPoller::new().unwrap();
        let irqfds = IrqfdSet::new(poller.clone(), router.clone());
        let rig = Self { router, controller, poller, irqfds };
        rig.route(MESSAGE, message(1));
        rig.route(LINE, spi(40));
        rig
    }

    fn route(&self, gsi: Gsi, route: Route) {
        self.router.commit(&[Change::Set(gsi, route)]).unwrap();
    }

    /// Serves all signals and returns the inputs that the controller received.
    fn serve(&self) -> Vec<Heard> {
        while self.poller.dispatch(NOW).unwrap() > 0 {}
        self.controller.heard()
    }

    /// Ends the interrupt of an SPI, as the guest does.
    fn end(&self, intid: u32) {
        self.irqfds.observer().deactivated(Line::Spi(intid));
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

fn eventfd_with(flags: EventfdFlags) -> Arc<OwnedFd> {
    Arc::new(eventfd(0, flags).unwrap())
}

fn nonblocking() -> Arc<OwnedFd> {
    eventfd_with(EventfdFlags::NONBLOCK)
}

fn signal(eventfd: &OwnedFd) {
    rustix::io::write(eventfd, &1u64.to_ne_bytes()).unwrap();
}

/// Returns the eventfd's count, the number of signals since it was last read.
fn count(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(eventfd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

#[test]
fn binding_a_blocking_irqfd_eventfd_is_refused() {
    let rig = Rig::new();
    let refused = rig.irqfds.bind(eventfd_with(EventfdFlags::empty()), MESSAGE).unwrap_err();
    assert!(matches!(refused, IrqfdError::Blocking));
}

/// The device can fill the counter of a blocking eventfd, which would then block the vCPU that ends
/// an interrupt.
#[test]
fn a_resample_eventfd_that_blocks_is_refused() {
    let rig = Rig::new();
    let resample = eventfd_with(EventfdFlags::empty());
    let refused = rig.irqfds.bind_level(nonblocking(), resample, LINE).unwrap_err();
    assert!(matches!(refused, IrqfdError::Blocking));
}

/// `KVM_IRQFD` returns EBUSY if the eventfd is already bound.
#[test]
fn binding_a_bound_eventfd_or_its_duplicate_is_refused() {
    let rig = Rig::new();
    let (device, other) = (nonblocking(), nonblocking());
    let duplicate = Arc::new(device.try_clone().unwrap());
    let bound = rig.irqfds.bind(device.clone(), MESSAGE).unwrap();
    for again in [&device, &duplicate] {
        let refused = rig.irqfds.bind(again.clone(), LINE);
        assert!(matches!(refused, Err(IrqfdError::AlreadyBound)), "{refused:?}");
        let refused = rig.irqfds.bind_level(again.clone(), other.clone(), LINE);
        assert!(matches!(refused, Err(IrqfdError::AlreadyBound)), "{refused:?}");
    }
    let _other = rig.irqfds.bind(other.clone(), LINE).unwrap();
    signal(&duplicate);
    assert_eq!(rig.serve(), [event(1)]);

    drop(bound);

    let _again = rig.irqfds.bind(duplicate.clone(), LINE).unwrap();
    signal(&device);
    assert_eq!(rig.serve(), [Heard::Pulse(Line::Spi(40))]);
}

#[test]
fn binding_a_file_that_is_not_pollable_is_refused() {
    let rig = Rig::new();
    let file = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::NONBLOCK).unwrap();
    assert!(matches!(rig.irqfds.bind(file, MESSAGE), Err(IrqfdError::System(_))));
}

#[test]
fn unserved_signals_merge_into_one_message() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(device.clone(), MESSAGE).unwrap();
    assert_eq!(rig.serve(), []);

    signal(&device);
    signal(&device);

    assert_eq!(rig.serve(), [event(1)]);
    signal(&device);
    assert_eq!(rig.serve(), [event(1)]);
    assert_eq!(rig.serve(), []);
}

#[test]
fn signal_without_a_route_is_lost() {
    let rig = Rig::new();
    let (device, other) = (nonblocking(), nonblocking());
    let _bound = [
        rig.irqfds.bind(device.clone(), Gsi::new(77)).unwrap(),
        rig.irqfds.bind(other.clone(), MESSAGE).unwrap(),
    ];
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
    let bound = rig.irqfds.bind(device.clone(), MESSAGE).unwrap();
    drop(bound);
    signal(&device);
    assert_eq!(rig.serve(), []);
    assert_eq!(count(&device), 1);
}

#[test]
fn closing_the_peer_of_a_bound_socket_signals_nothing() {
    let rig = Rig::new();
    let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let _bound = rig.irqfds.bind(socket, MESSAGE).unwrap();
    drop(other);
    let served = [(); 3].map(|()| rig.poller.dispatch(NOW).unwrap());
    assert_eq!((served, rig.controller.heard()), ([0; 3], vec![]));
}

#[test]
fn an_eoi_lowers_the_line_and_signals_the_resample_eventfd() {
    let rig = Rig::new();
    let (device, resample) = (nonblocking(), nonblocking());
    let _bound = rig.irqfds.bind_level(device.clone(), resample.clone(), LINE).unwrap();
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
fn the_eoi_of_a_shared_line_resamples_all_devices() {
    let rig = Rig::new();
    let devices = [nonblocking(), nonblocking()];
    let resamples = [nonblocking(), nonblocking()];
    let bound = [0, 1]
        .map(|at| rig.irqfds.bind_level(devices[at].clone(), resamples[at].clone(), LINE).unwrap());
    for device in &devices {
        signal(device);
    }
    assert_eq!(rig.serve(), [line(40, Level::High); 2]);

    rig.end(40);

    assert_eq!(rig.controller.heard(), [line(40, Level::Low)]);
    assert_eq!(resamples.each_ref().map(|resample| count(resample)), [1, 1]);
    drop(bound);
    assert_eq!(rig.controller.heard(), []);
}

#[test]
fn unbinding_the_last_asserting_eventfd_lowers_the_line() {
    let rig = Rig::new();
    let devices = [nonblocking(), nonblocking()];
    let resample = nonblocking();
    let [one, other] = [0, 1]
        .map(|at| rig.irqfds.bind_level(devices[at].clone(), resample.clone(), LINE).unwrap());
    for device in &devices {
        signal(device);
    }
    rig.serve();

    drop(one);
    assert_eq!(rig.controller.heard(), []);
    drop(other);
    assert_eq!(rig.controller.heard(), [line(40, Level::Low)]);
}

#[test]
fn rerouting_a_level_irqfd_lowers_its_former_line() {
    let rig = Rig::new();
    let (device, resample) = (nonblocking(), nonblocking());
    let _bound = rig.irqfds.bind_level(device.clone(), resample.clone(), LINE).unwrap();
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

/// Interrupt controller that owns its observer. The observer's routes point back to the controller.
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
fn an_irqfd_observer_does_not_keep_the_controller_alive() {
    let controller = Arc::new(Observed::default());
    let router = Router::new(GsiSpace::default(), Inputs::new(controller.clone())).unwrap();
    let irqfds = IrqfdSet::new(EventfdPoller::new().unwrap(), Arc::new(router));
    assert!(controller.0.set(irqfds.observer()).is_ok());
    let machine = Arc::downgrade(&controller);

    drop((controller, irqfds));

    assert!(machine.upgrade().is_none());
}

/// Controller whose kicks for event 1 block.
#[derive(Default)]
struct Slow {
    blocks: AtomicBool,
    rung: [AtomicU32; 3],
}

impl Slow {
    fn wait_until_rung(&self, event: usize, times: u32) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.rung[event].load(SeqCst) < times {
            assert!(Instant::now() < deadline, "event {event} was not served in time");
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
fn a_blocked_irqfd_does_not_delay_other_irqfds() {
    let slow = Arc::new(Slow { blocks: AtomicBool::new(true), ..Slow::default() });
    let inputs = Inputs::new(Arc::new(Controller::default())).with_its(slow.clone());
    let router = Arc::new(Router::new(GsiSpace::default(), inputs).unwrap());
    let gsis = [1, 2].map(|event| {
        let gsi = router.allocate().unwrap();
        router.commit(&[Change::Set(gsi, message(event))]).unwrap();
        gsi
    });
    let poller = EventfdPoller::new().unwrap();
    let irqfds = IrqfdSet::new(poller.clone(), router);
    let _serving = [poller.spawn().unwrap(), poller.spawn().unwrap()];
    let devices = [nonblocking(), nonblocking()];
    let _bound = [0, 1].map(|at| irqfds.bind(devices[at].clone(), gsis[at]).unwrap());

    signal(&devices[0]);
    slow.wait_until_rung(1, 1);
    for time in 1..=3 {
        signal(&devices[0]);
        signal(&devices[1]);
        slow.wait_until_rung(2, time);
    }
    drop(irqfds.bind(nonblocking(), gsis[0]).unwrap());
    assert_eq!(slow.rung[1].load(SeqCst), 1, "only one thread at a time may serve an eventfd");

    let limit = Duration::from_millis(20);
    assert_eq!(irqfds.settle(limit), Err(Unsettled(limit)), "a kick still blocks");

    slow.blocks.store(false, SeqCst);

    slow.wait_until_rung(1, 2);
}

#[test]
fn the_poller_fd_is_readable_while_a_signal_is_pending() {
    let rig = Rig::new();
    let device = nonblocking();
    let _bound = rig.irqfds.bind(device.clone(), MESSAGE).unwrap();
    let is_readable = || {
        let mut waited = [PollFd::new(&*rig.poller, PollFlags::IN)];
        poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    };
    assert!(!is_readable());
    signal(&device);
    assert!(is_readable());
    rig.serve();
    assert!(!is_readable());
    assert!(rig.poller.as_fd().try_clone_to_owned().is_ok());
}
