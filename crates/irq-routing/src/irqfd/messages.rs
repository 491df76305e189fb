//! Eventfds that send messages without using a GSI.

use super::poller::{EventfdId, EventfdPoller, IrqfdError, PolledEventfd};
use crate::{MessageSink, RoutedMessage, Unsettled};
use alloc::sync::Arc;
use core::time::Duration;
use rustix::fd::{AsFd, OwnedFd};

/// A factory for eventfds that send messages, implemented by
/// [`MessageEventfdSet`](crate::irqfd::MessageEventfdSet) for a model in this process, by
/// `kvm::MsiIrqfdSet` for Linux's KVM, or by the VMM itself.
pub trait MessageIrqfdSet: Send + Sync {
    /// Type of the eventfds.
    type Irqfd: MessageIrqfd;

    /// Adds an eventfd, initially closed.
    fn add(&self, eventfd: Arc<OwnedFd>) -> Self::Irqfd;

    /// Waits until every signal from before this call, of any open eventfd in the set, is in the
    /// interrupt controller. Called once the devices have stopped, before the controller is saved.
    ///
    /// # Errors
    /// Returns [`Unsettled`] if a signal is still being served after `limit`.
    fn settle(&self, limit: Duration) -> Result<(), Unsettled>;
}

/// An eventfd that sends a message while it is open. Dropping it closes it.
pub trait MessageIrqfd: Send {
    /// Opens the eventfd. From now on, each signal sends this message, including one that the
    /// eventfd already holds.
    ///
    /// # Errors
    /// Returns the host's error if the host refuses, in which case the eventfd is closed.
    fn open(&mut self, message: RoutedMessage) -> Result<(), IrqfdError>;

    /// Closes the eventfd: later signals stay in the eventfd. On return, no message is being sent.
    fn close(&mut self);
}

impl<T: MessageIrqfdSet + ?Sized> MessageIrqfdSet for Arc<T> {
    type Irqfd = T::Irqfd;

    fn add(&self, eventfd: Arc<OwnedFd>) -> T::Irqfd {
        (**self).add(eventfd)
    }

    fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        (**self).settle(limit)
    }
}

/// Eventfds that send messages to an interrupt controller model, for
/// [`DeviceEventfds`](crate::device_eventfds::DeviceEventfds). These eventfds don't use GSIs.
pub struct MessageEventfdSet {
    poller: Arc<EventfdPoller>,
    sink: Arc<dyn MessageSink>,
}

impl MessageEventfdSet {
    /// Creates an empty set. `poller` serves the eventfds' signals. `sink` receives the messages: a
    /// [`Router`](crate::Router), or the VMM's own [`MessageSink`].
    pub fn new(poller: Arc<EventfdPoller>, sink: Arc<dyn MessageSink>) -> Self {
        Self { poller, sink }
    }
}

impl MessageIrqfdSet for MessageEventfdSet {
    type Irqfd = MessageEventfd;

    fn add(&self, eventfd: Arc<OwnedFd>) -> MessageEventfd {
        let (poller, sink) = (self.poller.clone(), self.sink.clone());
        let id = EventfdId::of(eventfd.as_fd());
        MessageEventfd { poller, sink, eventfd, id, polled: None }
    }

    fn settle(&self, limit: Duration) -> Result<(), Unsettled> {
        self.poller.settle(limit)
    }
}

msi_types::debug_by!(MessageEventfdSet as "MessageEventfdSet", |it| {poller: it.poller});

/// An eventfd in a [`MessageEventfdSet`].
pub struct MessageEventfd {
    poller: Arc<EventfdPoller>,
    sink: Arc<dyn MessageSink>,
    eventfd: Arc<OwnedFd>,
    /// Identity of the eventfd. It never changes, and looking it up reads a file in `/proc`, which
    /// costs more than the rest of [`open`](MessageIrqfd::open).
    id: Option<EventfdId>,
    polled: Option<PolledEventfd>,
}

impl MessageIrqfd for MessageEventfd {
    fn open(&mut self, message: RoutedMessage) -> Result<(), IrqfdError> {
        self.close();
        let sink = self.sink.clone();
        let send = move || {
            // If no doorbell accepts the message, the message is lost, as with `KVM_IRQFD`.
            let _ = sink.signal_msi(message);
        };
        self.polled = Some(self.poller.add_known(self.eventfd.clone(), self.id, send)?);
        Ok(())
    }

    fn close(&mut self) {
        self.polled = None;
    }
}

msi_types::debug_by!(MessageEventfd as "MessageEventfd", |it| {polled: it.polled});
