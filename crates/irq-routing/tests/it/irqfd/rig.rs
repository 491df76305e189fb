//! Test rig: eventfds on a router with a message and a line.

use crate::controller::{Controller, Heard};
use irq_routing::irqfd::{EventfdPoller, IrqfdSet};
use irq_routing::{Change, GsiSpace, Pin, Route, Router, Routing};
use msi_types::{DeviceId, Gsi, Level, Line, MsiMessage};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub(super) const NOW: Option<Duration> = Some(Duration::ZERO);
pub(super) const MESSAGE: Gsi = Gsi::new(5);
pub(super) const LINE: Gsi = Gsi::new(6);

pub(super) struct Rig {
    pub(super) router: Arc<Router>,
    pub(super) controller: Arc<Controller>,
    pub(super) poller: Arc<EventfdPoller>,
    pub(super) irqfds: Arc<IrqfdSet>,
}

impl Rig {
    /// Creates a rig in which GSI 5 is routed to event 1 of device 1, and GSI 6 to SPI 40.
    pub(super) fn new() -> Self {
        let controller = Arc::new(Controller::default());
        let router = Arc::new(Router::new(GsiSpace::default(), controller.inputs()).unwrap());
        let poller = EventfdPoller::new().unwrap();
        let irqfds = IrqfdSet::new(poller.clone(), router.clone());
        let rig = Self { router, controller, poller, irqfds };
        rig.route(MESSAGE, message(1));
        rig.route(LINE, spi(40));
        rig
    }

    pub(super) fn route(&self, gsi: Gsi, route: Route) {
        self.router.commit(&[Change::Set(gsi, route)]).unwrap();
    }

    /// Serves all signals and returns the inputs that the controller received.
    pub(super) fn serve(&self) -> Vec<Heard> {
        while self.poller.dispatch(NOW).unwrap() > 0 {}
        self.controller.heard()
    }

    /// Ends the interrupt of an SPI, as the guest does.
    pub(super) fn end(&self, intid: u32) {
        self.irqfds.observer().deactivated(Line::Spi(intid));
    }
}

pub(super) fn message(event: u32) -> Route {
    Route::to_its(DeviceId::new(1), MsiMessage { address: Controller::ITS, data: event })
}

pub(super) fn spi(intid: u32) -> Route {
    Route::Pin(Pin::of_spi(intid).unwrap())
}

pub(super) fn event(event: u32) -> Heard {
    Heard::Event(DeviceId::new(1), event)
}

pub(super) fn line(intid: u32, level: Level) -> Heard {
    Heard::Line(Line::Spi(intid), level)
}

pub(super) fn eventfd_with(flags: EventfdFlags) -> Arc<OwnedFd> {
    Arc::new(eventfd(0, flags).unwrap())
}

pub(super) fn nonblocking() -> Arc<OwnedFd> {
    eventfd_with(EventfdFlags::NONBLOCK)
}

pub(super) fn signal(eventfd: &OwnedFd) {
    rustix::io::write(eventfd, &1u64.to_ne_bytes()).unwrap();
}

/// Returns the eventfd's count, the number of signals since it was last read.
pub(super) fn count(eventfd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(eventfd, &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}
