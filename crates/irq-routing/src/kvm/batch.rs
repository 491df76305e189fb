//! Eventfds that are served by user space until one table hands many of them to the kernel.
//!
//! 1. An eventfd that is opened is polled: user space reads it and sends its message.
//! 2. A hand-over gives all waiting eventfds a GSI and sets their routes, as one commit.
//! 3. For each of them, it ends the polling, which waits for a message that is being sent. A later
//!    signal stays in the eventfd.
//! 4. It binds the eventfd in the kernel, which takes a signal that is there already. So each
//!    signal is sent once, by user space or by the kernel.
//! 5. An eventfd that is closed keeps its GSI. If it is opened with the same message, the kernel
//!    still has the route, and no table is needed.
//!
//! A hand-over takes place as soon as more eventfds were opened since the last one than the kernel
//! serves: n eventfds cost about log2(n) tables. The others wait for the timer.

use crate::irqfd::IrqfdError;
use crate::lock::Mutex;
use crate::{Change, Route, RouteError, RoutedMessage, Routing};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use msi_types::Gsi;
use std::io;

/// The ways in which eventfds are served.
pub(crate) trait Backend {
    type Eventfd;
    /// Service by user space, until it is dropped.
    type Polled;
    /// Service by the kernel, until it is dropped.
    type Bound;

    fn routing(&self) -> &dyn Routing;
    fn poll(
        &self,
        eventfd: &Self::Eventfd,
        message: RoutedMessage,
    ) -> Result<Self::Polled, IrqfdError>;
    fn bind(&self, eventfd: &Self::Eventfd, gsi: Gsi) -> io::Result<Self::Bound>;
    /// Returns false for a message that stays with user space, as the kernel may refuse its route.
    fn takes(&self, message: RoutedMessage) -> bool;
    /// Starts the time after which [`Batch::hand_over`] is to be called.
    fn start_timer(&self);
}

/// Eventfds and their services, under one lock. No message takes it.
pub(crate) struct Batch<B: Backend> {
    pub(crate) backend: B,
    state: Mutex<State<B>>,
}

struct State<B: Backend> {
    next: u64,
    vectors: BTreeMap<u64, Vector<B>>,
    /// Vectors that are open and that the kernel does not serve.
    waiting: BTreeSet<u64>,
    /// Number of vectors that were opened since the last hand-over.
    opened: usize,
    /// Number of vectors that the kernel serves.
    bound: usize,
}

struct Vector<B: Backend> {
    eventfd: B::Eventfd,
    /// Message to be sent; `None` while the vector is closed.
    message: Option<RoutedMessage>,
    service: Service<B>,
    gsi: Option<Gsi>,
    /// Message to which the GSI is routed.
    routed: Option<RoutedMessage>,
}

enum Service<B: Backend> {
    None,
    Polled(B::Polled),
    Bound(B::Bound),
}

impl<B: Backend> Batch<B> {
    pub(crate) fn new(backend: B) -> Self {
        let (vectors, waiting) = Default::default();
        let state = State { next: 0, vectors, waiting, opened: 0, bound: 0 };
        Self { backend, state: Mutex::new(state) }
    }

    /// Adds a closed vector. Returns its key.
    pub(crate) fn add(&self, eventfd: B::Eventfd) -> u64 {
        let mut state = self.state.lock();
        let key = state.next;
        state.next += 1;
        let service = Service::None;
        let vector = Vector { eventfd, message: None, service, gsi: None, routed: None };
        state.vectors.insert(key, vector);
        key
    }

    /// Opens a vector, or changes its message.
    pub(crate) fn open(&self, key: u64, message: RoutedMessage) -> Result<(), IrqfdError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(vector) = state.vectors.get_mut(&key) else { return Ok(()) };
        if vector.message == Some(message) {
            return Ok(());
        }
        if vector.stop() {
            state.bound -= 1;
        }
        state.waiting.remove(&key);
        if vector.routed == Some(message) && vector.bind(&self.backend).is_ok() {
            vector.message = Some(message);
            state.bound += 1;
            return Ok(());
        }
        vector.service = Service::Polled(self.backend.poll(&vector.eventfd, message)?);
        vector.message = Some(message);
        state.waiting.insert(key);
        state.opened += 1;
        if state.opened > state.bound {
            // Those that the kernel does not take stay with user space.
            let _ = state.hand_over(&self.backend);
        }
        self.start_timer(state);
        Ok(())
    }

    /// Closes a vector. On return, its message is not being sent, nor will be.
    pub(crate) fn close(&self, key: u64) {
        let mut state = self.state.lock();
        state.close(key);
        self.start_timer(&state);
    }

    /// Removes a vector. Its GSI is free again.
    pub(crate) fn remove(&self, key: u64) {
        let mut state = self.state.lock();
        state.close(key);
        if let Some(gsi) = state.vectors.remove(&key).and_then(|vector| vector.gsi) {
            // It fails only for what is not allocated.
            let _ = self.backend.routing().release(&[gsi]);
        }
        self.start_timer(&state);
    }

    /// Hands the waiting vectors to the kernel, by one table. Returns their number.
    ///
    /// # Errors
    /// There are too few GSIs, or the kernel refuses the routes. Such vectors stay with user space.
    pub(crate) fn hand_over(&self) -> Result<usize, RouteError> {
        self.state.lock().hand_over(&self.backend)
    }

    /// Returns the number of vectors that user space serves.
    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().waiting.len()
    }

    fn start_timer(&self, state: &State<B>) {
        if !state.waiting.is_empty() {
            self.backend.start_timer();
        }
    }
}

impl<B: Backend> State<B> {
    fn close(&mut self, key: u64) {
        let Some(vector) = self.vectors.get_mut(&key) else { return };
        if vector.stop() {
            self.bound -= 1;
        }
        self.waiting.remove(&key);
    }

    fn hand_over(&mut self, backend: &B) -> Result<usize, RouteError> {
        self.opened = 0;
        let (changes, short) = self.plan(backend);
        if !changes.is_empty() {
            let commit: Vec<_> = changes.iter().map(|(_, change)| *change).collect();
            backend.routing().commit(&commit)?;
        }
        let mut handed_over = 0;
        for (key, _) in changes {
            let Some(vector) = self.vectors.get_mut(&key) else { continue };
            vector.routed = vector.message;
            if vector.take_over(backend) {
                self.waiting.remove(&key);
                self.bound += 1;
                handed_over += 1;
            }
        }
        short.map_or(Ok(handed_over), Err)
    }

    /// Returns the routes that waiting vectors need, and the reason if there are too few GSIs.
    fn plan(&mut self, backend: &B) -> (Vec<(u64, Change)>, Option<RouteError>) {
        let mut changes = Vec::new();
        let waiting: Vec<_> = self.waiting.iter().copied().collect();
        for key in waiting {
            let Some(vector) = self.vectors.get(&key) else { continue };
            let Some(message) = vector.message.filter(|message| backend.takes(*message)) else {
                continue;
            };
            let gsi = match vector.gsi {
                Some(gsi) => gsi,
                None => match self.allocate(backend) {
                    Ok(gsi) => gsi,
                    Err(error) => return (changes, Some(error)),
                },
            };
            if let Some(vector) = self.vectors.get_mut(&key) {
                vector.gsi = Some(gsi);
            }
            changes.push((key, Change::Set(gsi, Route::Message(message))));
        }
        (changes, None)
    }

    /// Allocates a GSI, if need be one of those that closed vectors keep.
    fn allocate(&mut self, backend: &B) -> Result<Gsi, RouteError> {
        let routing = backend.routing();
        routing.allocate().or_else(|exhausted| {
            let closed = |vector: &&mut Vector<B>| vector.message.is_none();
            let kept: Vec<_> = self
                .vectors
                .values_mut()
                .filter(closed)
                .filter_map(|vector| {
                    vector.routed = None;
                    vector.gsi.take()
                })
                .collect();
            if kept.is_empty() {
                return Err(exhausted);
            }
            routing.release(&kept)?;
            routing.allocate()
        })
    }
}

impl<B: Backend> Vector<B> {
    /// Ends the service. Returns true if the kernel served the vector.
    fn stop(&mut self) -> bool {
        self.message = None;
        matches!(core::mem::replace(&mut self.service, Service::None), Service::Bound(_))
    }

    fn bind(&mut self, backend: &B) -> io::Result<()> {
        let gsi = self.gsi.ok_or(io::ErrorKind::NotFound)?;
        self.service = Service::Bound(backend.bind(&self.eventfd, gsi)?);
        Ok(())
    }

    /// Ends the polling and binds the eventfd. If the kernel refuses it, polls again, and returns
    /// false.
    fn take_over(&mut self, backend: &B) -> bool {
        self.service = Service::None;
        if self.bind(backend).is_ok() {
            return true;
        }
        if let Some(polled) =
            self.message.and_then(|message| backend.poll(&self.eventfd, message).ok())
        {
            self.service = Service::Polled(polled);
        }
        false
    }
}
