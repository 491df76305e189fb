//! Hands eventfds over between user space and the kernel while a device signals them.

use super::{explore_random, numbered};
use crate::gsis::Gsis;
use crate::irqfd::IrqfdError;
use crate::irqfd::serving::{Read, Serving, Taken};
use crate::kvm::batch::{Backend, Batch};
use crate::sync::{AtomicBool, SeqCst};
use crate::{
    Change, ChangeCount, Invalidation, MessageSink, Route, RouteError, RoutedMessage, Routing,
    SignalError,
};
use alloc::boxed::Box;
use alloc::vec::Vec;
use msi_types::{Delivery, Gsi};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;
use std::collections::BTreeMap;
use std::io;

/// An eventfd, as `KVM_IRQFD` treats it. While the eventfd is bound, signals are injected;
/// otherwise, they are counted.
#[derive(Default)]
struct Eventfd(Mutex<Count>);

#[derive(Default)]
struct Count {
    count: u32,
    bound: Option<Gsi>,
}

/// A polled eventfd, and the function to call for its signals.
#[derive(Clone)]
struct PolledEventfd {
    serving: Arc<Serving>,
    eventfd: Arc<Eventfd>,
    signalled: Arc<Box<dyn Fn() + Send + Sync>>,
    /// `true` while a thread runs the function. At most one thread may run it at a time.
    is_called: Arc<AtomicBool>,
}

impl PolledEventfd {
    fn call(&self) {
        assert!(!self.is_called.swap(true, SeqCst), "two threads serve it");
        (self.signalled)();
        self.is_called.store(false, SeqCst);
    }
}

/// The simulated host: the kernel's routes, the polled eventfds, the timer, and every message sent
/// so far.
struct World {
    gsis: Mutex<Gsis>,
    routes: Mutex<BTreeMap<Gsi, RoutedMessage>>,
    tables: Mutex<u32>,
    polled: Mutex<Vec<PolledEventfd>>,
    timer: Mutex<bool>,
    /// `true` while the IOMMU blocks all messages.
    blocked: Mutex<bool>,
    /// `true` while eventfds cannot be polled.
    refused: Mutex<bool>,
    sent: Mutex<Vec<RoutedMessage>>,
}

#[derive(Clone)]
struct Host(Arc<World>);

struct Polled {
    host: Host,
    serving: Arc<Serving>,
}

struct Bound(Arc<Eventfd>);

impl Host {
    fn new() -> Self {
        let gsis = Mutex::new(Gsis::new(4, 8));
        let (routes, tables) = (Mutex::default(), Mutex::new(0));
        let (polled, timer, sent) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (blocked, refused) = (Mutex::default(), Mutex::default());
        Self(Arc::new(World { gsis, routes, tables, polled, timer, blocked, refused, sent }))
    }

    fn inject(&self, gsi: Gsi) {
        // If the GSI has no route, the signal is lost.
        let route = self.0.routes.lock().expect("no thread panics").get(&gsi).copied();
        self.0.sent.lock().expect("no thread panics").extend(route);
    }

    /// Signals an eventfd on behalf of the device.
    fn write(&self, eventfd: &Eventfd) {
        let mut state = eventfd.0.lock().expect("no thread panics");
        match state.bound {
            Some(gsi) => {
                state.count = 0;
                self.inject(gsi);
            }
            None => state.count += 1,
        }
    }

    /// Has a poller serve each eventfd once.
    fn dispatch(&self) {
        let polled: Vec<_> = self.0.polled.lock().expect("no thread panics").clone();
        for polled in polled {
            let read = || {
                let count =
                    core::mem::take(&mut polled.eventfd.0.lock().expect("no thread panics").count);
                if count > 0 { Read::Signal } else { Read::Nothing }
            };
            if let Taken::Signal(turn) = polled.serving.take(read) {
                turn.serve(|| polled.call());
            }
        }
    }

    /// Has a poller serve the timer. Returns `true` if it had expired.
    fn tick(&self, batch: &Batch<Self>) -> bool {
        let mut timer = self.0.timer.lock().expect("no thread panics");
        let expired = core::mem::take(&mut *timer);
        drop(timer);
        if expired {
            batch.hand_over_active().expect("GSIs are available");
        }
        expired
    }

    fn sent(&self) -> Vec<RoutedMessage> {
        self.0.sent.lock().expect("no thread panics").clone()
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        let others = |other: &PolledEventfd| !Arc::ptr_eq(&other.serving, &self.serving);
        self.host.0.polled.lock().expect("no thread panics").retain(others);
        self.serving.end();
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // The kernel resets the counter on unbind.
        *self.0.0.lock().expect("no thread panics") = Count::default();
    }
}

impl Backend for Host {
    type Eventfd = Arc<Eventfd>;
    type Polled = Polled;
    type Bound = Bound;

    fn routing(&self) -> &dyn Routing {
        self
    }

    fn poll(
        &self,
        eventfd: &Arc<Eventfd>,
        signalled: impl Fn() + Send + Sync + 'static,
    ) -> Result<Polled, IrqfdError> {
        if *self.0.refused.lock().expect("no thread panics") {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
        }
        let serving = Arc::new(Serving::default());
        let (eventfd, signalled) = (eventfd.clone(), Arc::new(Box::new(signalled) as Box<_>));
        let is_called = Arc::new(AtomicBool::new(false));
        let entry = PolledEventfd { serving: serving.clone(), eventfd, signalled, is_called };
        self.0.polled.lock().expect("no thread panics").push(entry);
        Ok(Polled { host: self.clone(), serving })
    }

    fn bind(&self, eventfd: &Arc<Eventfd>, gsi: Gsi) -> io::Result<Bound> {
        let mut state = eventfd.0.lock().expect("no thread panics");
        state.bound = Some(gsi);
        if state.count > 0 {
            // The kernel serves the signal without resetting the counter.
            self.inject(gsi);
        }
        Ok(Bound(eventfd.clone()))
    }

    fn takes(&self, _: RoutedMessage) -> bool {
        !*self.0.blocked.lock().expect("no thread panics")
    }

    fn start_timer(&self) {
        *self.0.timer.lock().expect("no thread panics") = true;
    }
}

impl MessageSink for Host {
    fn signal_msi(&self, message: RoutedMessage) -> Result<Delivery, SignalError> {
        self.0.sent.lock().expect("no thread panics").push(message);
        Ok(Delivery::Pending)
    }
}

impl Routing for Host {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.0.gsis.lock().expect("no thread panics").allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        // The routes remain in effect, because a release does not set a table.
        self.0.gsis.lock().expect("no thread panics").release_all(gsis)
    }

    fn commit(&self, changes: &[Change]) -> Result<ChangeCount, RouteError> {
        *self.0.tables.lock().expect("no thread panics") += 1;
        for change in changes {
            if let Some(Route::Message(message)) = change.route() {
                self.0.routes.lock().expect("no thread panics").insert(change.gsi(), message);
            }
        }
        Ok(ChangeCount::default())
    }

    fn invalidate(&self, _: &Invalidation) -> Result<(), RouteError> {
        Ok(())
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        Err(SignalError::Unrouted(gsi))
    }
}

/// A device's vector, while threads poll and signal.
struct Scene {
    host: Host,
    batch: Arc<Batch<Host>>,
    key: u64,
    eventfd: Arc<Eventfd>,
}

impl Scene {
    /// Runs `pollers` threads that poll twice, and one that signals through `device`, while
    /// `change` opens and closes the vector. Returns both closures' results when all threads have
    /// ended.
    fn during<D: Send + 'static, C>(
        pollers: usize,
        device: impl FnOnce(&Host, &Eventfd) -> D + Send + 'static,
        change: impl FnOnce(&Host, &Batch<Host>, u64) -> C,
    ) -> (Self, D, C) {
        let host = Host::new();
        let batch = Arc::new(Batch::new(host.clone()));
        let eventfd = Arc::new(Eventfd::default());
        let key = batch.add(eventfd.clone());
        let poll = |_| {
            let (host, batch) = (host.clone(), batch.clone());
            thread::spawn(move || {
                (0..2).for_each(|_| {
                    host.dispatch();
                    host.tick(&batch);
                });
            })
        };
        let threads: Vec<_> = (0..pollers).map(poll).collect();
        let device = thread::spawn({
            let (host, eventfd) = (host.clone(), eventfd.clone());
            move || device(&host, &eventfd)
        });
        let changed = change(&host, &batch, key);
        for thread in threads {
            thread.join().expect("checks in threads do not panic");
        }
        let told = device.join().expect("checks in threads do not panic");
        (Self { host, batch, key, eventfd }, told, changed)
    }

    /// Runs `change` against one poller and one signal.
    fn of_one(change: impl FnOnce(&Host, &Batch<Host>, u64)) -> Self {
        Self::during(1, Host::write, change).0
    }

    /// Opens the vector with `change`, closes it, and asserts that no message is sent afterwards.
    fn closed(
        pollers: usize,
        device: impl FnOnce(&Host, &Eventfd) + Send + 'static,
        change: impl FnOnce(&Batch<Host>, u64),
    ) -> Self {
        let (scene, (), sent) = Self::during(pollers, device, |host, batch, key| {
            change(batch, key);
            batch.close(key);
            host.sent()
        });
        assert_eq!(scene.host.sent(), sent, "a message was sent after the close");
        scene
    }

    /// Asserts that a single signal was sent either before the vector was closed or on reopening.
    fn judge_one_signal(&self) {
        self.open(2);
        self.settle();
        let sent = self.host.sent();
        assert!(sent == [numbered(1)] || sent == [numbered(2)], "{sent:?}");
    }

    fn open(&self, number: u32) {
        self.batch.open(self.key, numbered(number)).expect("it is not blocking");
    }

    /// Polls until there is nothing left to do.
    fn settle(&self) {
        self.host.dispatch();
        while self.host.tick(&self.batch) {}
    }
}

#[test]
fn a_hand_over_sends_each_signal_once() {
    fn scenario() {
        let scene = Scene::of_one(|_, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
        });
        scene.settle();
        assert_eq!(scene.host.sent(), [numbered(1)]);

        scene.batch.close(scene.key);
        scene.open(1);
        scene.settle();
        assert_eq!(scene.host.sent(), [numbered(1)], "a signal was sent twice");
        let tables = *scene.host.0.tables.lock().expect("no thread panics");
        assert_eq!(tables, 1, "the route was already set");
    }
    explore_random(5_000, scenario);
}

#[test]
fn a_vector_that_rang_ends_with_the_kernel() {
    fn scenario() {
        let open = |_: &Host, batch: &Batch<Host>, key| batch.open(key, numbered(1)).unwrap();
        let (scene, ..) = Scene::during(2, Host::write, open);
        scene.settle();
        assert_eq!((scene.host.sent().len(), scene.batch.polled()), (1, 0));

        scene.host.write(&scene.eventfd);
        assert_eq!(scene.host.sent().len(), 2, "the kernel must serve the eventfd");
        // Open enough vectors that opening one more doesn't start a hand-over.
        for _ in 0..2 {
            let key = scene.batch.add(Arc::default());
            scene.batch.open(key, numbered(3)).unwrap();
        }
        scene.batch.hand_over().unwrap();
        scene.open(2);
        scene.settle();
        assert_eq!(scene.batch.polled(), 0, "a vector that rang before must be handed over");
    }
    explore_random(5_000, scenario);
}

#[test]
fn a_closed_vector_sends_nothing() {
    fn scenario() {
        let open = |batch: &Batch<Host>, key| batch.open(key, numbered(1)).unwrap();
        Scene::closed(1, Host::write, open).judge_one_signal();
    }
    explore_random(5_000, scenario);
}

#[test]
fn a_vector_of_the_kernel_that_is_closed_sends_nothing() {
    fn scenario() {
        let bind = |batch: &Batch<Host>, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
        };
        Scene::closed(1, Host::write, bind).judge_one_signal();
    }
    explore_random(5_000, scenario);
}

#[test]
fn two_pollers_send_nothing_after_a_close() {
    fn scenario() {
        let twice = |host: &Host, eventfd: &Eventfd| {
            host.write(eventfd);
            host.write(eventfd);
        };
        let open = |batch: &Batch<Host>, key| {
            batch.open(key, numbered(1)).unwrap();
            thread::yield_now();
        };
        Scene::closed(2, twice, open);
    }
    explore_random(10_000, scenario);
}

#[test]
fn two_pollers_lose_no_signal() {
    fn scenario() {
        let twice = |host: &Host, eventfd: &Eventfd| {
            host.write(eventfd);
            let before = host.sent().len();
            host.write(eventfd);
            before
        };
        let open = |_: &Host, batch: &Batch<Host>, key| batch.open(key, numbered(1)).unwrap();
        let (scene, before, ()) = Scene::during(2, twice, open);
        scene.settle();
        assert!(scene.host.sent().len() > before, "the second signal sent no message");
    }
    explore_random(10_000, scenario);
}

#[test]
fn a_changed_message_is_never_sent_as_it_was() {
    fn scenario() {
        let scene = Scene::of_one(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.open(key, numbered(2)).unwrap();
            let sent = host.sent();
            thread::yield_now();
            let later = host.sent();
            assert!(later.iter().skip(sent.len()).all(|message| *message == numbered(2)));
        });
        scene.batch.hand_over().unwrap();
        scene.settle();
        assert_eq!(scene.host.sent().len(), 1);
        scene.batch.remove(scene.key);
    }
    explore_random(5_000, scenario);
}

/// Changes whether the IOMMU blocks all messages.
fn block(host: &Host, blocked: bool) {
    *host.0.blocked.lock().expect("no thread panics") = blocked;
}

#[test]
fn user_space_serves_a_blocked_vector() {
    fn scenario() {
        let scene = Scene::of_one(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
            block(host, true);
            batch.retranslate(&Invalidation::all());
        });
        scene.settle();
        assert_eq!((scene.host.sent().len(), scene.batch.polled()), (1, 1));
        scene.host.write(&scene.eventfd);
        scene.settle();
        assert_eq!(scene.batch.polled(), 1, "the kernel has no route");

        // The guest maps the page without an invalidation.
        block(&scene.host, false);
        scene.host.write(&scene.eventfd);
        scene.settle();
        assert_eq!(scene.batch.polled(), 0, "the kernel must serve the eventfd again");
    }
    explore_random(5_000, scenario);
}

#[test]
fn an_invalidation_retries_a_failed_poll() {
    fn scenario() {
        let scene = Scene::of_one(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
            block(host, true);
            for refused in [true, false] {
                *host.0.refused.lock().expect("no thread panics") = refused;
                batch.retranslate(&Invalidation::all());
            }
        });
        scene.settle();
        assert_eq!((scene.host.sent().len(), scene.batch.polled()), (1, 1));
        scene.host.write(&scene.eventfd);
        scene.settle();
        assert_eq!(scene.host.sent().len(), 2, "user space must serve the eventfd");
    }
    explore_random(1_000, scenario);
}

#[test]
fn user_space_serves_a_vector_that_was_blocked_while_closed() {
    fn scenario() {
        let scene = Scene::of_one(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.hand_over().unwrap();
            batch.close(key);
            block(host, true);
            batch.retranslate(&Invalidation::all());
        });
        scene.open(1);
        assert_eq!(scene.batch.polled(), 1, "the kernel has no route");
    }
    explore_random(1_000, scenario);
}
