//! Eventfds bound to levels. Pollers serve their requests while the guest ends the interrupt, and
//! while the GSI is rerouted or the eventfd is unbound.

use super::explore;
use crate::irqfd::levels::{LevelSource, Levels};
use crate::irqfd::serving::{Read, Serving, Taken};
use crate::sync::{AtomicBool, SeqCst};
use crate::{Change, GsiSpace, Inputs, Pin, Route, Router, Routing};
use core::time::Duration;
use msi_types::{Delivery, Gsi, Level, Line, SetLine};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use shuttle::sync::Arc;
use shuttle::sync::atomic::AtomicU32;
use shuttle::thread;
use std::time::Instant;

const GSI: Gsi = Gsi::new(1);
/// Pins to which the GSI can be routed.
const PINS: [u32; 2] = [40, 41];

/// Interrupt controller that records its inputs' levels.
#[derive(Default)]
struct Controller([AtomicBool; 2]);

impl SetLine for Controller {
    fn set_line(&self, line: Line, level: Level) -> Delivery {
        let index = PINS.iter().position(|pin| line == Line::Spi(*pin));
        let index = index.expect("the GSI is only routed to these pins");
        self.0[index].store(level == Level::High, SeqCst);
        Delivery::Pending
    }

    fn pulse(&self, _: Line) -> Delivery {
        Delivery::Blocked
    }
}

/// An eventfd that is bound to the GSI's level.
struct Scene {
    controller: Arc<Controller>,
    router: Router,
    levels: Levels,
    source: Arc<LevelSource>,
    serving: Serving,
    /// Counter of the trigger eventfd.
    trigger: AtomicU32,
    resample: Arc<OwnedFd>,
}

impl Scene {
    fn new() -> Arc<Self> {
        let controller = Arc::new(Controller::default());
        let router = Router::new(GsiSpace::new(4), Inputs::new(controller.clone()));
        let router = router.expect("GSIs 0 to 3 fit");
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        let resample = Arc::new(eventfd(0, flags).expect("an eventfd can be created"));
        let source = LevelSource::new(GSI, resample.clone());
        let (levels, serving) = (Levels::default(), Serving::default());
        let trigger = AtomicU32::new(0);
        let scene = Self { controller, router, levels, source, serving, trigger, resample };
        scene.route(0);
        Arc::new(scene)
    }

    fn route(&self, pin: usize) {
        let pin = Pin::of_spi(PINS[pin]).expect("the number is an SPI");
        let change = Change::Set(GSI, Route::Pin(pin));
        self.router.commit(&[change]).expect("the GSI exists");
    }

    /// Signals the trigger eventfd on behalf of the device.
    fn request(&self) {
        self.trigger.fetch_add(1, SeqCst);
    }

    /// Serves the trigger eventfd once, as a poller does.
    fn poll(&self) {
        let read = || match self.trigger.swap(0, SeqCst) {
            0 => Read::Nothing,
            _ => Read::Signal,
        };
        if let Taken::Signal(turn) = self.serving.take(read) {
            turn.serve(|| self.levels.signal(&self.router, &self.source));
        }
    }

    /// Settles the trigger eventfd, as `EventfdPoller::settle` does.
    fn settle(&self) {
        self.poll();
        assert!(self.serving.wait_until_idle(Instant::now(), Duration::MAX));
    }

    /// Ends the first pin's interrupt on behalf of the guest.
    fn end_interrupt(&self) {
        self.levels.resample(&self.router, Line::Spi(PINS[0]));
    }

    fn unbind(&self) {
        self.serving.end();
        self.levels.end(&self.router, &self.source);
    }

    /// Returns `true` if the device was asked to signal again.
    fn is_resampled(&self) -> bool {
        rustix::io::read(&*self.resample, &mut [0; 8]) == Ok(8)
    }

    fn levels(&self) -> [bool; 2] {
        [0, 1].map(|pin: usize| self.controller.0[pin].load(SeqCst))
    }
}

fn spawn(scene: &Arc<Scene>, act: fn(&Scene)) -> thread::JoinHandle<()> {
    let scene = scene.clone();
    thread::spawn(move || act(&scene))
}

/// The guest signals EOI while two pollers serve the device's requests.
#[test]
fn an_ended_interrupt_lowers_its_pin() {
    fn scenario() {
        let scene = Scene::new();
        let pollers = [(), ()].map(|()| {
            spawn(&scene, |scene| {
                scene.request();
                scene.poll();
            })
        });
        scene.end_interrupt();
        scene.end_interrupt();
        for poller in pollers {
            poller.join().unwrap();
        }
        scene.poll();
        scene.end_interrupt();
        assert!(scene.is_resampled(), "the device waits forever");
        assert_eq!(scene.levels(), [false; 2], "the interrupt never ends");
    }
    explore(2_500, scenario);
}

/// A resampled device signals again while the guest is still ending the interrupt.
#[test]
fn a_request_after_a_resample_is_not_lost() {
    fn scenario() {
        let scene = Scene::new();
        scene.request();
        scene.poll();
        let guest = spawn(&scene, Scene::end_interrupt);
        let mut has_requested = false;
        for _ in 0..20 {
            if scene.is_resampled() {
                has_requested = true;
                scene.request();
                scene.poll();
                break;
            }
            thread::yield_now();
        }
        guest.join().unwrap();
        assert_eq!(has_requested, scene.levels()[0], "the request is lost");
        assert_ne!(has_requested, scene.is_resampled(), "the device waits forever");
    }
    explore(2_500, scenario);
}

#[test]
fn settling_asserts_the_pin_of_an_unserved_signal() {
    fn scenario() {
        let scene = Scene::new();
        scene.request();
        let poller = spawn(&scene, Scene::poll);
        scene.settle();
        assert_eq!(scene.levels(), [true, false], "a saved state would lack the level");
        poller.join().unwrap();
    }
    explore(2_500, scenario);
}

#[test]
fn an_unbound_eventfd_asserts_no_pin() {
    fn scenario() {
        let scene = Scene::new();
        scene.request();
        let poller = spawn(&scene, Scene::poll);
        let guest = spawn(&scene, Scene::end_interrupt);
        scene.unbind();
        assert_eq!(scene.levels(), [false; 2], "asserted after the unbind");
        poller.join().unwrap();
        guest.join().unwrap();
        assert_eq!(scene.levels(), [false; 2], "asserted after the unbind");
    }
    explore(2_500, scenario);
}

#[test]
fn a_rerouted_eventfd_releases_its_pin() {
    fn scenario() {
        let scene = Scene::new();
        scene.request();
        scene.poll();
        let poller = spawn(&scene, |scene| {
            scene.request();
            scene.poll();
        });
        let guest = spawn(&scene, Scene::end_interrupt);
        scene.route(1);
        poller.join().unwrap();
        guest.join().unwrap();
        scene.request();
        scene.poll();
        assert_eq!(scene.levels(), [false, true], "the eventfd asserts the new pin only");
    }
    explore(2_500, scenario);
}
