//! Eventfds by which devices in the kernel and in other processes signal vectors (VFIO,
//! vhost-user).
//!
//! [`DeviceEventfds`] owns the eventfds and their binds. Invariant: an eventfd is bound to its
//! vector's message if and only if the vector is open; a signal meanwhile stays in the eventfd.
//!
//! - While its vector is masked, an eventfd is read when the guest reads pending bits, and when the
//!   table is saved or reset. Pending bits are therefore true.
//! - On unmask, the bind sends what the eventfd holds.
//! - A source gets another vector ([`set_vector`](DeviceEventfds::set_vector)) without a word to
//!   the process that holds the eventfd: the `queue_msix_vector` of a virtio device. Several
//!   sources may share a vector.

use crate::irqfd::IrqfdError;
use crate::lock::Mutex;
use crate::msix::VectorObserver;
use crate::{Change, Route, RoutedMessage, Routing};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use msi_types::Gsi;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{OFlags, fcntl_getfl};
use std::collections::HashMap;
use std::io;

/// A way to have eventfds send messages: [`ByGsi`], or a monitor's own.
pub trait MessageIrqfds: Send + Sync {
    /// A bind. Dropping it ends the bind: later signals stay in the eventfd.
    type Bound: Send;

    /// Has each signal of an eventfd send a message. A signal from before the bind counts.
    ///
    /// # Errors
    /// The host's.
    fn bind(&self, trigger: Arc<OwnedFd>, message: RoutedMessage) -> io::Result<Self::Bound>;
}

/// Eventfds by a GSI each, with one change of routes for each bind.
pub struct ByGsi<F> {
    routing: Arc<dyn Routing>,
    bind: F,
}

impl<F> ByGsi<F> {
    /// Takes GSIs and routes from `routing`, and binds by `bind`: `irqfd::Irqfds::bind`, or
    /// `kvm::KvmRouter::bind`.
    pub fn new(routing: Arc<dyn Routing>, bind: F) -> Self {
        Self { routing, bind }
    }
}

impl<F> fmt::Debug for ByGsi<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByGsi").finish_non_exhaustive()
    }
}

/// A bind of [`ByGsi`].
pub struct BoundGsi<B> {
    bound: Option<B>,
    gsi: Gsi,
    routing: Arc<dyn Routing>,
}

impl<B, F> MessageIrqfds for ByGsi<F>
where
    B: Send,
    F: Fn(Arc<OwnedFd>, Gsi) -> io::Result<B> + Send + Sync,
{
    type Bound = BoundGsi<B>;

    fn bind(&self, trigger: Arc<OwnedFd>, message: RoutedMessage) -> io::Result<BoundGsi<B>> {
        let gsi = self.routing.allocate().map_err(io::Error::other)?;
        // Dropped on an error, it releases the GSI.
        let mut bound = BoundGsi { bound: None, gsi, routing: self.routing.clone() };
        let route = Change::Set(gsi, Route::Message(message));
        self.routing.commit(&[route]).map_err(io::Error::other)?;
        bound.bound = Some((self.bind)(trigger, gsi)?);
        Ok(bound)
    }
}

impl<B> Drop for BoundGsi<B> {
    fn drop(&mut self) {
        self.bound = None;
        // The routing's refusal has no one to be reported to.
        let _ = self.routing.release(&[self.gsi]);
    }
}

impl<B> fmt::Debug for BoundGsi<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoundGsi").field("gsi", &self.gsi).finish_non_exhaustive()
    }
}

/// An eventfd of a [`DeviceEventfds`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceId(usize);

/// The host's refusal to bind an eventfd. The source's signals stay in its eventfd, until an
/// access of the guest opens its vector again, or [`serve`](DeviceEventfds::serve).
#[derive(Debug, thiserror::Error)]
#[error("the eventfd of source {source_id:?} cannot send vector {vector}: {error}")]
pub struct BindError {
    /// The source.
    pub source_id: SourceId,
    /// Its vector.
    pub vector: u16,
    /// The host's error.
    #[source]
    pub error: io::Error,
}

/// A device's eventfds and the vectors that they signal. It observes the vectors of the device's
/// MSI-X table or MSI capability, which must be given it as the observer.
pub struct DeviceEventfds<I: MessageIrqfds> {
    irqfds: I,
    state: Mutex<State<I::Bound>>,
}

struct State<B> {
    sources: Vec<Source<B>>,
    /// Messages of the vectors that may send.
    open: HashMap<u16, RoutedMessage>,
    errors: Vec<BindError>,
}

struct Source<B> {
    eventfd: Arc<OwnedFd>,
    vector: Option<u16>,
    bound: Option<B>,
}

impl<I: MessageIrqfds> DeviceEventfds<I> {
    /// Creates an object without eventfds.
    pub fn new(irqfds: I) -> Self {
        let state = State { sources: Vec::new(), open: HashMap::new(), errors: Vec::new() };
        Self { irqfds, state: Mutex::new(state) }
    }

    /// Adds an eventfd without a vector. The device holds another descriptor of it, and must
    /// neither read it nor make it block.
    ///
    /// # Errors
    /// [`IrqfdError::Blocking`].
    pub fn add(&self, eventfd: OwnedFd) -> Result<SourceId, IrqfdError> {
        if !fcntl_getfl(eventfd.as_fd())?.contains(OFlags::NONBLOCK) {
            return Err(IrqfdError::Blocking);
        }
        let mut state = self.state.lock();
        state.sources.push(Source { eventfd: Arc::new(eventfd), vector: None, bound: None });
        Ok(SourceId(state.sources.len() - 1))
    }

    /// Sets a source's vector, or takes it away. Signals that were not served yet go to the new
    /// vector; without one, they stay in the eventfd.
    ///
    /// # Errors
    /// The vector is open, but the host refuses the bind.
    pub fn set_vector(&self, source: SourceId, vector: Option<u16>) -> Result<(), BindError> {
        let mut state = self.state.lock();
        let message = vector.and_then(|vector| state.open.get(&vector).copied());
        let Some(place) = state.sources.get_mut(source.0) else { return Ok(()) };
        if place.vector == vector {
            return Ok(());
        }
        // The old bind ends before the new one begins: an eventfd has one at a time.
        place.bound = None;
        place.vector = vector;
        match (vector, message) {
            (Some(vector), Some(message)) => self.bind(place, message).map_err(|error| BindError {
                source_id: source,
                vector,
                error,
            }),
            _ => Ok(()),
        }
    }

    /// Returns the binds that the host refused during the guest's accesses, since the last call.
    pub fn take_errors(&self) -> Vec<BindError> {
        core::mem::take(&mut self.state.lock().errors)
    }

    /// Takes the signals of sources without a bind, and calls `signal` for the vector of each:
    /// [`MsixTable::signal`](crate::msix::MsixTable::signal), which sends it or makes it pending.
    /// For a monitor whose host refuses binds.
    pub fn serve(&self, signal: impl Fn(u16)) {
        let mut vectors = self.state.lock().unbound();
        vectors.sort_unstable();
        vectors.dedup();
        vectors.into_iter().filter(|vector| self.take_signal(*vector)).for_each(signal);
    }

    fn bind(&self, source: &mut Source<I::Bound>, message: RoutedMessage) -> io::Result<()> {
        source.bound = Some(self.irqfds.bind(source.eventfd.clone(), message)?);
        Ok(())
    }
}

impl<B> State<B> {
    /// Returns the vectors of sources without a bind.
    fn unbound(&self) -> Vec<u16> {
        let unbound = self.sources.iter().filter(|source| source.bound.is_none());
        unbound.filter_map(|source| source.vector).collect()
    }
}

impl<I: MessageIrqfds> VectorObserver for DeviceEventfds<I> {
    fn opened(&self, vector: u16, message: RoutedMessage) {
        let mut state = self.state.lock();
        state.open.insert(vector, message);
        let State { sources, errors, .. } = &mut *state;
        for (number, source) in sources.iter_mut().enumerate() {
            if source.vector == Some(vector)
                && let Err(error) = self.bind(source, message)
            {
                errors.push(BindError { source_id: SourceId(number), vector, error });
            }
        }
    }

    fn closed(&self, vector: u16) {
        let mut state = self.state.lock();
        state.open.remove(&vector);
        let sources = state.sources.iter_mut().filter(|source| source.vector == Some(vector));
        sources.for_each(|source| source.bound = None);
    }

    fn take_signal(&self, vector: u16) -> bool {
        let state = self.state.lock();
        let sources = state.sources.iter();
        let unbound =
            sources.filter(|source| source.vector == Some(vector) && source.bound.is_none());
        // Each is read, so that the signals of several sources become one.
        unbound.filter(|source| rustix::io::read(&source.eventfd, &mut [0; 8]) == Ok(8)).count() > 0
    }
}

impl<I: MessageIrqfds> fmt::Debug for DeviceEventfds<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.state.lock().sources.len();
        f.debug_struct("DeviceEventfds").field("sources", &sources).finish_non_exhaustive()
    }
}
