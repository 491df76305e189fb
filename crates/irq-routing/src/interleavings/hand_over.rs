//! Eventfds that move between user space and the kernel while their device signals.

use super::{explore_random, numbered};
use crate::gsis::Gsis;
use crate::irqfd::IrqfdError;
use crate::irqfd::serving::{Read, Serving, Taken};
use crate::kvm::batch::{Backend, Batch};
use crate::{Change, Changes, MessageSink, Route, RouteError, RoutedMessage, Routing, SignalError};
use alloc::vec::Vec;
use msi_types::{Delivery, Gsi};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread;
use std::collections::BTreeMap;
use std::io;

/// An eventfd, as `KVM_IRQFD` sees it: a signal is injected while it is bound, and counted else.
#[derive(Default)]
struct Eventfd(Mutex<Count>);

#[derive(Default)]
struct Count {
    count: u32,
    bound: Option<Gsi>,
}

/// An eventfd that is polled, its vector, and the message that it sends.
type PolledEventfd = (Arc<Serving>, Arc<Eventfd>, RoutedMessage);

/// The kernel's routes, the eventfds that are polled, and all messages that were sent.
struct World {
    gsis: Mutex<Gsis>,
    routes: Mutex<BTreeMap<Gsi, RoutedMessage>>,
    tables: Mutex<u32>,
    polled: Mutex<Vec<PolledEventfd>>,
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
        let (polled, sent) = (Mutex::default(), Mutex::default());
        Self(Arc::new(World { gsis, routes, tables, polled, sent }))
    }

    fn inject(&self, gsi: Gsi) {
        // A signal without a route is lost.
        let route = self.0.routes.lock().expect("no check panics with it").get(&gsi).copied();
        self.0.sent.lock().expect("no check panics with it").extend(route);
    }

    /// A device's write to its eventfd.
    fn write(&self, eventfd: &Eventfd) {
        let mut state = eventfd.0.lock().expect("no check panics with it");
        match state.bound {
            Some(gsi) => {
                state.count = 0;
                self.inject(gsi);
            }
            None => state.count += 1,
        }
    }

    /// A poller's turn with each eventfd.
    fn dispatch(&self) {
        let polled: Vec<_> = self.0.polled.lock().expect("no check panics with it").clone();
        for (serving, eventfd, message) in polled {
            let read = || {
                let count =
                    core::mem::take(&mut eventfd.0.lock().expect("no check panics with it").count);
                if count > 0 { Read::Signal } else { Read::Nothing }
            };
            if let Taken::Signal(turn) = serving.take(read) {
                turn.serve(|| self.0.sent.lock().expect("no check panics with it").push(message));
            }
        }
    }

    fn sent(&self) -> Vec<RoutedMessage> {
        self.0.sent.lock().expect("no check panics with it").clone()
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        let others = |(serving, ..): &(Arc<Serving>, _, _)| !Arc::ptr_eq(serving, &self.serving);
        self.host.0.polled.lock().expect("no check panics with it").retain(others);
        self.serving.end();
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // The kernel reads the counter as it lets the eventfd go.
        *self.0.0.lock().expect("no check panics with it") = Count::default();
    }
}

impl Backend for Host {
    type Eventfd = Arc<Eventfd>;
    type Polled = Polled;
    type Bound = Bound;

    fn routing(&self) -> &dyn Routing {
        self
    }

    fn poll(&self, eventfd: &Arc<Eventfd>, message: RoutedMessage) -> Result<Polled, IrqfdError> {
        let serving = Arc::new(Serving::default());
        let entry = (serving.clone(), eventfd.clone(), message);
        self.0.polled.lock().expect("no check panics with it").push(entry);
        Ok(Polled { host: self.clone(), serving })
    }

    fn bind(&self, eventfd: &Arc<Eventfd>, gsi: Gsi) -> io::Result<Bound> {
        let mut state = eventfd.0.lock().expect("no check panics with it");
        state.bound = Some(gsi);
        if state.count > 0 {
            // The kernel takes the signal and leaves the counter.
            self.inject(gsi);
        }
        Ok(Bound(eventfd.clone()))
    }

    fn takes(&self, _: RoutedMessage) -> bool {
        true
    }

    fn start_timer(&self) {}
}

impl MessageSink for Host {
    fn signal_msi(&self, _: RoutedMessage) -> Result<Delivery, SignalError> {
        Ok(Delivery::Blocked)
    }
}

impl Routing for Host {
    fn allocate(&self) -> Result<Gsi, RouteError> {
        self.0.gsis.lock().expect("no check panics with it").allocate()
    }

    fn release(&self, gsis: &[Gsi]) -> Result<(), RouteError> {
        // Routes stay, as no table is set.
        self.0.gsis.lock().expect("no check panics with it").release_all(gsis)
    }

    fn commit(&self, changes: &[Change]) -> Result<Changes, RouteError> {
        *self.0.tables.lock().expect("no check panics with it") += 1;
        for change in changes {
            if let Some(Route::Message(message)) = change.route() {
                self.0
                    .routes
                    .lock()
                    .expect("no check panics with it")
                    .insert(change.gsi(), message);
            }
        }
        Ok(Changes::default())
    }

    fn signal(&self, gsi: Gsi) -> Result<Delivery, SignalError> {
        Err(SignalError::Unrouted(gsi))
    }
}

/// Threads that poll and signal once, while `change` opens and closes the vector.
fn during(change: impl FnOnce(&Host, &Batch<Host>, u64)) -> (Host, Batch<Host>, u64) {
    let host = Host::new();
    let batch = Batch::new(host.clone());
    let eventfd = Arc::new(Eventfd::default());
    let key = batch.add(eventfd.clone());
    let poller = thread::spawn({
        let host = host.clone();
        move || (0..2).for_each(|_| host.dispatch())
    });
    let device = thread::spawn({
        let host = host.clone();
        move || host.write(&eventfd)
    });
    change(&host, &batch, key);
    poller.join().expect("no check panics in it");
    device.join().expect("no check panics in it");
    (host, batch, key)
}

#[test]
fn a_hand_over_sends_each_signal_once() {
    fn scenario() {
        let (host, batch, key) = during(|_, batch, key| batch.open(key, numbered(1)).unwrap());
        host.dispatch();
        assert_eq!(host.sent(), [numbered(1)]);

        batch.close(key);
        batch.open(key, numbered(1)).unwrap();
        host.dispatch();
        assert_eq!(host.sent(), [numbered(1)], "the kernel's signal came again");
        assert_eq!(
            *host.0.tables.lock().expect("no check panics with it"),
            1,
            "the route was there already"
        );
    }
    explore_random(5_000, scenario);
}

#[test]
fn a_closed_vector_sends_nothing() {
    fn scenario() {
        let (host, batch, key) = during(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.close(key);
            let sent = host.sent().len();
            thread::yield_now();
            assert_eq!(host.sent().len(), sent, "sent after the close");
        });
        batch.open(key, numbered(2)).unwrap();
        host.dispatch();
        let sent = host.sent();
        assert!(sent == [numbered(1)] || sent == [numbered(2)], "{sent:?}");
    }
    explore_random(5_000, scenario);
}

#[test]
fn a_changed_message_is_never_sent_as_it_was() {
    fn scenario() {
        let (host, batch, key) = during(|host, batch, key| {
            batch.open(key, numbered(1)).unwrap();
            batch.open(key, numbered(2)).unwrap();
            let sent = host.sent();
            thread::yield_now();
            let later = host.sent();
            assert!(later.iter().skip(sent.len()).all(|message| *message == numbered(2)));
        });
        batch.hand_over().unwrap();
        host.dispatch();
        assert_eq!(host.sent().len(), 1);
        batch.remove(key);
    }
    explore_random(5_000, scenario);
}
