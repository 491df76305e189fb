//! Devices that signal through eventfds just before a save. The eventfds end with the machine, so a
//! signal that is still in one of them afterwards is lost.

use super::machine::World;
use fastrand::Rng;
use irq_routing::irqfd::{EventfdPoller, Irqfd, IrqfdSet, IrqfdThread};
use irq_routing::{Change, GsiSpace, Inputs, Router, Routing as _};
use msi_types::Gsi;
use rustix::event::{EventfdFlags, eventfd};
use std::sync::Arc;
use std::time::Duration;
use vgic::Progress;

/// Maximum time for a signal to be served.
const LIMIT: Duration = Duration::from_mins(1);

/// The eventfds of a machine that is about to be saved.
pub(crate) struct Eventfds {
    irqfds: Arc<IrqfdSet>,
    /// Number of signals.
    pub(crate) signals: u64,
    _bound: Vec<Irqfd>,
    /// A thread that serves signals concurrently with the save.
    _thread: Option<IrqfdThread>,
}

impl Eventfds {
    /// Signals random sources once each. `with_messages` must be `false` if the guest has disabled
    /// LPIs, because a message that the controller refuses is not sent again.
    pub(crate) fn signal(world: &World, rng: &mut Rng, with_messages: bool) -> Self {
        let gic = &world.guest.gic;
        let inputs = Inputs::new(gic.clone()).with_doorbells(gic.clone());
        let inputs = match gic.its(0) {
            Some(its) => inputs.with_its(its),
            None => inputs,
        };
        let router = Arc::new(Router::new(GsiSpace::default(), inputs).unwrap());
        let poller = EventfdPoller::new().unwrap();
        let irqfds = IrqfdSet::new(poller.clone(), router.clone());
        let thread = rng.bool().then(|| poller.spawn().unwrap());
        while with_messages && gic.poll() == Progress::Unfinished {}
        let mut bound = Vec::new();
        for (source, gsi) in world.ledger.sources.iter().zip((0..).map(Gsi::new)) {
            let Some(route) = world.route(source, with_messages).filter(|_| rng.bool()) else {
                continue;
            };
            router.commit(&[Change::Set(gsi, route)]).unwrap();
            let device = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
            bound.push(irqfds.bind(device.clone(), gsi).unwrap());
            source.raise(|| rustix::io::write(&device, &1_u64.to_ne_bytes()).unwrap());
        }
        Self { irqfds, signals: bound.len() as u64, _bound: bound, _thread: thread }
    }

    /// Waits until the signals have reached the controller.
    pub(crate) fn settle(&self) {
        self.irqfds.settle(LIMIT).unwrap();
    }
}
