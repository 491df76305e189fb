//! A simulated host: KVM's eventfds and routes, and the pollers of user space.

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
use std::collections::BTreeMap;
use std::io;

/// An eventfd, as `KVM_IRQFD` treats it. While the eventfd is bound, signals are injected;
/// otherwise, they are counted.
#[derive(Default)]
pub(super) struct Eventfd(Mutex<Count>);

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
    signaled: Arc<Box<dyn Fn() + Send + Sync>>,
    /// `true` while a thread runs the function. At most one thread may run it at a time.
    is_called: Arc<AtomicBool>,
}

impl PolledEventfd {
    fn call(&self) {
        assert!(!self.is_called.swap(true, SeqCst), "two threads serve it");
        (self.signaled)();
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
pub(super) struct Host(Arc<World>);

pub(super) struct Polled {
    host: Host,
    serving: Arc<Serving>,
}

pub(super) struct Bound(Arc<Eventfd>);

impl Host {
    pub(super) fn new() -> Self {
        let gsis = Mutex::new(Gsis::new(4..8));
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
    pub(super) fn write(&self, eventfd: &Eventfd) {
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
    pub(super) fn dispatch(&self) {
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
    pub(super) fn tick(&self, batch: &Batch<Self>) -> bool {
        let mut timer = self.0.timer.lock().expect("no thread panics");
        let expired = core::mem::take(&mut *timer);
        drop(timer);
        if expired {
            batch.hand_over_active().expect("GSIs are available");
        }
        expired
    }

    /// Returns the number of tables that were set.
    pub(super) fn tables(&self) -> u32 {
        *self.0.tables.lock().expect("no thread panics")
    }

    /// Changes whether the IOMMU blocks all messages.
    pub(super) fn block(&self, blocked: bool) {
        *self.0.blocked.lock().expect("no thread panics") = blocked;
    }

    /// Changes whether eventfds cannot be polled.
    pub(super) fn refuse(&self, refused: bool) {
        *self.0.refused.lock().expect("no thread panics") = refused;
    }

    pub(super) fn sent(&self) -> Vec<RoutedMessage> {
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
        signaled: impl Fn() + Send + Sync + 'static,
    ) -> Result<Polled, IrqfdError> {
        if *self.0.refused.lock().expect("no thread panics") {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory).into());
        }
        let serving = Arc::new(Serving::default());
        let (eventfd, signaled) = (eventfd.clone(), Arc::new(Box::new(signaled) as Box<_>));
        let is_called = Arc::new(AtomicBool::new(false));
        let entry = PolledEventfd { serving: serving.clone(), eventfd, signaled, is_called };
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
