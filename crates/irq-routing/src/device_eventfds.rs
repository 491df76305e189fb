//! Eventfds through which devices in the kernel and in other processes (VFIO, vhost-user) signal
//! vectors.
//!
//! [`DeviceEventfds`] owns the eventfds. Invariant: an eventfd sends its vector's message if and
//! only if the vector is open. While the vector is closed, a signal stays in the eventfd.
//!
//! - While its vector is masked, an eventfd is read whenever the guest reads pending bits, and when
//!   the table is saved or reset. This keeps the pending bits accurate.
//! - When the vector is unmasked, a signal that was left in the eventfd sends the message.
//! - [`set_vector`](DeviceEventfds::set_vector) moves a source to another vector, e.g. when the
//!   guest writes a virtio device's `queue_msix_vector`. The process that signals the eventfd
//!   needn't know about the move. Several sources may share a vector.
//! - Before a save, [`MsixTable::settle`](crate::msix::MsixTable::settle) sends the signals that
//!   open vectors' eventfds still hold.

pub use crate::irqfd::messages::{MessageIrqfd, MessageIrqfdSet};

use crate::irqfd::poller::{IrqfdError, unblocking};
use crate::lock::Mutex;
use crate::msix::VectorObserver;
use crate::{RoutedMessage, Unsettled};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;
use rustix::fd::{AsFd, OwnedFd};
use std::collections::HashMap;

/// Identifier of an eventfd in a [`DeviceEventfds`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct SourceId(usize);

/// Error for an eventfd that the host refused to bind to a message. The source's signals stay in
/// its eventfd until a guest access opens the vector again, or until the VMM calls
/// [`serve`](DeviceEventfds::serve).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[error("the eventfd of source {source_id:?} cannot be bound to vector {vector}: {error}")]
pub struct BindError {
    /// The source.
    pub source_id: SourceId,
    /// Its vector.
    pub vector: u16,
    /// The host's error.
    #[source]
    pub error: IrqfdError,
}

/// A device's eventfds and the vectors that they signal. The VMM must register this object as the
/// [`VectorObserver`] of the device's MSI-X table or MSI capability.
pub struct DeviceEventfds<I: MessageIrqfdSet> {
    irqfds: I,
    state: Mutex<State<I::Irqfd>>,
}

struct State<I> {
    sources: Vec<Source<I>>,
    /// Messages of the open vectors, by vector.
    open: HashMap<u16, RoutedMessage>,
    errors: Vec<BindError>,
}

struct Source<I> {
    eventfd: Arc<OwnedFd>,
    irqfd: I,
    is_open: bool,
    vector: Option<u16>,
}

impl<I: MessageIrqfdSet> DeviceEventfds<I> {
    /// Creates an empty set. `irqfds` binds the set's eventfds to messages.
    pub fn new(irqfds: I) -> Self {
        let state = State { sources: Vec::new(), open: HashMap::new(), errors: Vec::new() };
        Self { irqfds, state: Mutex::new(state) }
    }

    /// Adds an eventfd without a vector. The device holds another descriptor for the eventfd, and
    /// must neither read it nor make it blocking.
    ///
    /// # Errors
    /// Returns [`IrqfdError::Blocking`] if the eventfd lacks `EFD_NONBLOCK`, or the operating
    /// system's error.
    pub fn add(&self, eventfd: OwnedFd) -> Result<SourceId, IrqfdError> {
        unblocking(eventfd.as_fd())?;
        let eventfd = Arc::new(eventfd);
        let irqfd = self.irqfds.add(eventfd.clone());
        let mut state = self.state.lock();
        state.sources.push(Source { eventfd, irqfd, is_open: false, vector: None });
        Ok(SourceId(state.sources.len() - 1))
    }

    /// Assigns a vector to a source, or removes its vector. Signals that have not been served yet
    /// are delivered to the new vector. Without a new vector, these signals stay in the eventfd.
    ///
    /// # Errors
    /// Returns [`BindError`] if the vector is open and the host refuses to bind the eventfd.
    pub fn set_vector(&self, source: SourceId, vector: Option<u16>) -> Result<(), BindError> {
        let mut state = self.state.lock();
        let message = vector.and_then(|vector| state.open.get(&vector).copied());
        let Some(place) = state.sources.get_mut(source.0) else { return Ok(()) };
        if place.vector == vector {
            return Ok(());
        }
        place.close();
        place.vector = vector;
        match (vector, message) {
            (Some(vector), Some(message)) => {
                let opened = place.open(message);
                opened.map_err(|error| BindError { source_id: source, vector, error })
            }
            _ => Ok(()),
        }
    }

    /// Returns the errors for eventfds that the host refused to bind during guest accesses since
    /// the last call.
    pub fn take_errors(&self) -> Vec<BindError> {
        core::mem::take(&mut self.state.lock().errors)
    }

    /// Reads the eventfds of sources that are not open, and calls `signal` for each vector that was
    /// signaled. Pass [`MsixTable::signal`](crate::msix::MsixTable::signal), which sends the
    /// message or makes it pending. The VMM needs to call this only if the host has refused to bind
    /// an eventfd.
    pub fn serve(&self, signal: impl Fn(u16)) {
        let mut vectors = self.state.lock().closed();
        vectors.sort_unstable();
        vectors.dedup();
        vectors.into_iter().filter(|vector| self.take_signal(*vector)).for_each(signal);
    }
}

impl<I> State<I> {
    /// Returns the closed sources' vectors.
    fn closed(&self) -> Vec<u16> {
        let closed = self.sources.iter().filter(|source| !source.is_open);
        closed.filter_map(|source| source.vector).collect()
    }
}

impl<I: MessageIrqfd> Source<I> {
    fn open(&mut self, message: RoutedMessage) -> Result<(), IrqfdError> {
        self.is_open = false;
        self.irqfd.open(message)?;
        self.is_open = true;
        Ok(())
    }

    fn close(&mut self) {
        self.irqfd.close();
        self.is_open = false;
    }
}

impl<I: MessageIrqfdSet> VectorObserver for DeviceEventfds<I> {
    fn opened(&self, vector: u16, message: RoutedMessage) {
        let mut state = self.state.lock();
        state.open.insert(vector, message);
        let State { sources, errors, .. } = &mut *state;
        for (number, source) in sources.iter_mut().enumerate() {
            if source.vector == Some(vector)
                && let Err(error) = source.open(message)
            {
                errors.push(BindError { source_id: SourceId(number), vector, error });
            }
        }
    }

    fn closed(&self, vector: u16) {
        let mut state = self.state.lock();
        state.open.remove(&vector);
        let sources = state.sources.iter_mut().filter(|source| source.vector == Some(vector));
        sources.for_each(Source::close);
    }

    fn take_signal(&self, vector: u16) -> bool {
        let state = self.state.lock();
        let sources = state.sources.iter();
        let closed = sources.filter(|source| source.vector == Some(vector) && !source.is_open);
        // Read the eventfds of all sources, because their signals merge into one.
        closed.filter(|source| rustix::io::read(&source.eventfd, &mut [0; 8]) == Ok(8)).count() > 0
    }

    fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        self.irqfds.settle(limit)
    }
}

impl<I: MessageIrqfdSet> fmt::Debug for DeviceEventfds<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sources = self.state.lock().sources.len();
        f.debug_struct("DeviceEventfds").field("sources", &sources).finish_non_exhaustive()
    }
}
