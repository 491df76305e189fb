//! Eventfds that user space serves until they are signaled, and the kernel serves from then on.
//!
//! 1. An eventfd is polled once it is opened: user space reads it and sends its message. An eventfd
//!    that is never signaled stays in this state.
//! 2. After its first message, an eventfd is marked as active. Then the timer is started.
//! 3. A hand-over sets the routes that active eventfds lack, in one commit. The same table includes
//!    routes for all other open eventfds, so none of them will need another table later.
//! 4. For each active eventfd, the hand-over stops polling (and waits for a message that is being
//!    sent). A later signal stays in the eventfd.
//! 5. The hand-over binds the eventfd in the kernel, which serves any signal that the eventfd
//!    already holds. Each signal is therefore sent exactly once, by user space or by the kernel.
//! 6. An eventfd that is closed keeps its GSI. If it is reopened with the same message, the kernel
//!    still has the route and no table is needed.
//!
//! A hand-over takes place when the timer has expired, and as soon as more than half of all open
//! eventfds were opened since the last one. Opening n eventfds therefore costs at most about
//! log2(n) tables.
//!
//! We could simply set a route and bind the eventfd on each unmask. However, KVM would then have to
//! process n tables with up to n routes each, and it would walk all bound eventfds for each table.
//! Measured on x86-64, 1,024 vectors take 136 ms that way and 7.6 ms with hand-overs, and 2,048
//! take 585 ms and 16 ms; 16 vectors take 0.2 ms either way.

use crate::irqfd::IrqfdError;
use crate::lock::Mutex;
use crate::sync::{AtomicBool, SeqCst};
use crate::{Change, Invalidation, Route, RouteError, RoutedMessage, Routing};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec::Vec;
use msi_types::Gsi;
use std::io;

/// A backend that polls eventfds in user space or binds them in the kernel.
pub(crate) trait Backend: Send + Sync + 'static {
    type Eventfd;
    /// Service of an eventfd by user space. Dropping it ends the service.
    type Polled;
    /// Service of an eventfd by the kernel. Dropping it ends the service.
    type Bound;

    fn routing(&self) -> &dyn Routing;
    /// Calls `signaled` for each signal.
    fn poll(
        &self,
        eventfd: &Self::Eventfd,
        signaled: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self::Polled, IrqfdError>;
    fn bind(&self, eventfd: &Self::Eventfd, gsi: Gsi) -> io::Result<Self::Bound>;
    /// Returns `false` if the kernel may refuse the message's route. In that case, user space keeps
    /// serving the eventfd.
    fn takes(&self, message: RoutedMessage) -> bool;
    /// Starts the timer. When the timer expires, the backend must call [`Batch::hand_over_active`].
    fn start_timer(&self);
}

/// Eventfds and their services, under one lock. Threads that send messages don't take this lock.
pub(crate) struct Batch<B: Backend> {
    backend: Arc<B>,
    state: Mutex<State<B>>,
}

struct State<B: Backend> {
    next: u64,
    vectors: BTreeMap<u64, Vector<B>>,
    /// Open vectors that the kernel doesn't serve.
    polled: BTreeSet<u64>,
    /// Number of vectors that the kernel serves.
    bound: usize,
    /// Number of vectors opened since the last hand-over.
    opened: usize,
    /// `true` if the last hand-over could not route every active vector.
    behind: bool,
}

struct Vector<B: Backend> {
    eventfd: B::Eventfd,
    /// The message to send, or `None` while the vector is closed.
    message: Option<RoutedMessage>,
    service: Service<B>,
    /// `true` once the vector has been signaled, or its hand-over was requested.
    active: Arc<AtomicBool>,
    gsi: Option<Gsi>,
    /// The message that the GSI is routed to.
    routed: Option<RoutedMessage>,
}

enum Service<B: Backend> {
    None,
    Polled(B::Polled),
    Bound(B::Bound),
}

impl<B: Backend> Batch<B> {
    pub(crate) fn new(backend: B) -> Self {
        let (vectors, polled) = Default::default();
        let state = State { next: 0, vectors, polled, bound: 0, opened: 0, behind: false };
        Self { backend: Arc::new(backend), state: Mutex::new(state) }
    }

    /// Adds a vector, initially closed. Returns its key.
    pub(crate) fn add(&self, eventfd: B::Eventfd) -> u64 {
        let mut state = self.state.lock();
        let key = state.next;
        state.next += 1;
        state.vectors.insert(key, Vector::new(eventfd));
        key
    }

    /// Opens a vector, or changes its message.
    pub(crate) fn open(&self, key: u64, message: RoutedMessage) -> Result<(), IrqfdError> {
        let mut state = self.state.lock();
        let state = &mut *state;
        let Some(vector) = state.vectors.get(&key) else { return Ok(()) };
        if vector.message == Some(message) {
            return Ok(());
        }
        state.close(key);
        let Some(vector) = state.vectors.get_mut(&key) else { return Ok(()) };
        let active = vector.active.load(SeqCst);
        let is_served = active && vector.routed == Some(message) && self.backend.takes(message);
        if is_served && vector.bind(&*self.backend).is_ok() {
            vector.message = Some(message);
            state.bound += 1;
            return Ok(());
        }
        vector.poll(&self.backend, message)?;
        vector.message = Some(message);
        state.polled.insert(key);
        state.opened += 1;
        if active {
            self.backend.start_timer();
        }
        if 2 * state.opened > state.polled.len() + state.bound {
            // If the kernel doesn't accept a vector, user space keeps serving it.
            let _ = state.hand_over(&self.backend);
        }
        Ok(())
    }

    /// Closes a vector. On return, no thread is sending the vector's message, and none will until
    /// the vector is opened again.
    pub(crate) fn close(&self, key: u64) {
        let mut state = self.state.lock();
        state.close(key);
        self.go_on(&state);
    }

    /// Removes a vector and frees its GSI.
    pub(crate) fn remove(&self, key: u64) {
        let mut state = self.state.lock();
        state.close(key);
        if let Some(gsi) = state.vectors.remove(&key).and_then(|vector| vector.gsi) {
            // This can only fail if the GSI isn't allocated.
            let _ = self.backend.routing().release(&[gsi]);
        }
        self.go_on(&state);
    }

    /// Hands all open vectors to the kernel with one table. Returns how many were handed over.
    ///
    /// # Errors
    /// Returns an error if there are too few GSIs or the kernel refuses the routes. Vectors that
    /// could not be routed are still served by user space.
    pub(crate) fn hand_over(&self) -> Result<usize, RouteError> {
        let mut state = self.state.lock();
        for key in &state.polled {
            if let Some(vector) = state.vectors.get(key) {
                vector.active.store(true, SeqCst);
            }
        }
        state.hand_over(&self.backend)
    }

    /// Hands the active vectors to the kernel with at most one table (none, if the kernel already
    /// has the routes).
    ///
    /// # Errors
    /// Returns an error under the same conditions as [`hand_over`](Self::hand_over).
    pub(crate) fn hand_over_active(&self) -> Result<usize, RouteError> {
        self.state.lock().hand_over(&self.backend)
    }

    /// Waits until the kernel has served the earlier signals of the vectors bound in it: unbinding
    /// waits for them. Vectors that the kernel refuses to bind again are polled.
    pub(crate) fn settle(&self) {
        let mut state = self.state.lock();
        let State { vectors, polled, bound, .. } = &mut *state;
        for (key, vector) in vectors {
            if matches!(vector.service, Service::Bound(_)) && !vector.take_over(&self.backend) {
                *bound -= 1;
                polled.insert(*key);
            }
        }
    }

    /// Has user space serve vectors whose messages the IOMMU now blocks. Once the IOMMU forwards
    /// them again, the next signal schedules a hand-over.
    pub(crate) fn retranslate(&self, invalidation: &Invalidation) {
        let mut state = self.state.lock();
        let State { vectors, polled, bound, .. } = &mut *state;
        for (key, vector) in vectors {
            let concerned = |message: &RoutedMessage| invalidation.concerns_message(*message);
            let Some(message) = vector.message.filter(concerned) else { continue };
            match vector.service {
                Service::Bound(_) if !self.backend.takes(message) => {
                    vector.service = Service::None;
                    vector.active.store(false, SeqCst);
                    *bound -= 1;
                    polled.insert(*key);
                }
                // An earlier attempt to poll the eventfd failed.
                Service::None => {}
                Service::Bound(_) | Service::Polled(_) => continue,
            }
            // This is not expected to fail, because polling the same eventfd succeeded before.
            let _ = vector.poll(&self.backend, message);
        }
    }

    /// Returns the number of open vectors that user space serves.
    pub(crate) fn polled(&self) -> usize {
        self.state.lock().polled.len()
    }

    /// Schedules another hand-over if the last one could not route every active vector. A GSI may
    /// be free now.
    fn go_on(&self, state: &State<B>) {
        if state.behind {
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
        self.polled.remove(&key);
    }

    fn hand_over(&mut self, backend: &Arc<B>) -> Result<usize, RouteError> {
        self.opened = 0;
        let (active, idle) = self.divide(&**backend);
        let routed = self.route(&**backend, &active, &idle);
        let mut handed_over = 0;
        for key in active {
            let Some(vector) = self.vectors.get_mut(&key) else { continue };
            if vector.is_routed() && vector.take_over(backend) {
                self.polled.remove(&key);
                self.bound += 1;
                handed_over += 1;
            }
        }
        self.behind = routed.is_err();
        routed.map(|()| handed_over)
    }

    /// Sorts the polled vectors that the kernel can serve into active and idle ones.
    fn divide(&self, backend: &B) -> (Vec<u64>, Vec<u64>) {
        let vector = |key: &&u64| self.vectors.get(*key);
        let takes = |vector: &Vector<B>| {
            let is_taken = vector.message.is_some_and(|it| backend.takes(it));
            // A signal after the IOMMU forwards the message again schedules the next hand-over.
            vector.active.fetch_and(is_taken, SeqCst);
            is_taken
        };
        let candidates = self.polled.iter().filter(|key| vector(key).is_some_and(takes));
        candidates.partition(|key| vector(key).is_some_and(|vector| vector.active.load(SeqCst)))
    }

    /// Sets missing routes with a single table if an active vector lacks its route. The GSIs that
    /// remain free are used for idle vectors.
    fn route(&mut self, backend: &B, active: &[u64], idle: &[u64]) -> Result<(), RouteError> {
        let is_routed = |key: &u64| self.vectors.get(key).is_none_or(Vector::is_routed);
        if active.iter().all(is_routed) {
            return Ok(());
        }
        let mut short = None;
        let mut changes = Vec::new();
        for (keys, needed) in [(active, true), (idle, false)] {
            for key in keys {
                let Some(change) = self.change(backend, *key, needed).transpose() else { continue };
                match change {
                    Ok(change) => changes.push((*key, change)),
                    Err(error) => {
                        short = short.or(Some(error).filter(|_| needed));
                        break;
                    }
                }
            }
        }
        let commit: Vec<_> = changes.iter().map(|(_, change)| *change).collect();
        backend.routing().commit(&commit)?;
        for (key, _) in changes {
            if let Some(vector) = self.vectors.get_mut(&key) {
                vector.routed = vector.message;
            }
        }
        short.map_or(Ok(()), Err)
    }

    /// Returns the change that routes a vector, or `None` if its route is already set.
    fn change(
        &mut self,
        backend: &B,
        key: u64,
        needed: bool,
    ) -> Result<Option<Change>, RouteError> {
        let Some(vector) = self.vectors.get(&key).filter(|vector| !vector.is_routed()) else {
            return Ok(None);
        };
        let gsi = match vector.gsi {
            Some(gsi) => gsi,
            None if needed => self.allocate(backend)?,
            None => backend.routing().allocate()?,
        };
        let Some(vector) = self.vectors.get_mut(&key) else { return Ok(None) };
        vector.gsi = Some(gsi);
        Ok(vector.message.map(|message| Change::Set(gsi, Route::Message(message))))
    }

    /// Allocates a GSI. If no GSI is free, first reclaims the GSIs of closed and idle vectors.
    fn allocate(&mut self, backend: &B) -> Result<Gsi, RouteError> {
        let routing = backend.routing();
        routing.allocate().or_else(|exhausted| {
            let unused =
                |vector: &&mut Vector<B>| vector.message.is_none() || !vector.active.load(SeqCst);
            let kept: Vec<_> = self
                .vectors
                .values_mut()
                .filter(unused)
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
    fn new(eventfd: B::Eventfd) -> Self {
        let active = Arc::new(AtomicBool::new(false));
        Self { eventfd, message: None, service: Service::None, active, gsi: None, routed: None }
    }

    fn is_routed(&self) -> bool {
        self.routed == self.message
    }

    /// Ends the service. Returns `true` if the kernel served the vector.
    fn stop(&mut self) -> bool {
        self.message = None;
        matches!(core::mem::replace(&mut self.service, Service::None), Service::Bound(_))
    }

    fn poll(&mut self, backend: &Arc<B>, message: RoutedMessage) -> Result<(), IrqfdError> {
        let (sender, active) = (backend.clone(), self.active.clone());
        let signaled = move || {
            // If no doorbell accepts the message, the message is lost, as with `KVM_IRQFD`.
            let _ = sender.routing().signal_msi(message);
            if !active.swap(true, SeqCst) {
                sender.start_timer();
            }
        };
        self.service = Service::Polled(backend.poll(&self.eventfd, signaled)?);
        Ok(())
    }

    fn bind(&mut self, backend: &B) -> io::Result<()> {
        let gsi = self.gsi.ok_or(io::ErrorKind::NotFound)?;
        self.service = Service::Bound(backend.bind(&self.eventfd, gsi)?);
        Ok(())
    }

    /// Ends the service and binds the eventfd in the kernel. If the kernel refuses to bind it,
    /// polls it and returns `false`.
    fn take_over(&mut self, backend: &Arc<B>) -> bool {
        self.service = Service::None;
        let bound = self.bind(backend).is_ok();
        if let Some(message) = self.message.filter(|_| !bound) {
            // This is not expected to fail, because polling the same eventfd succeeded before.
            let _ = self.poll(backend, message);
        }
        bound
    }
}
