//! Eventfds that send messages and need no GSI.

use super::error::IrqfdError;
use super::poller::{EventfdPoller, PolledEventfd};
use crate::{MessageSink, RoutedMessage};
use alloc::sync::Arc;
use core::fmt;
use rustix::fd::OwnedFd;

/// A way to have eventfds send messages: [`MessageEventfdSet`](crate::irqfd::MessageEventfdSet) for
/// a model, `kvm::MsiIrqfdSet` for Linux's KVM, or a monitor's own.
pub trait MessageIrqfdSet: Send + Sync {
    /// An eventfd.
    type Irqfd: MessageIrqfd;

    /// Adds an eventfd, which is closed.
    fn add(&self, eventfd: Arc<OwnedFd>) -> Self::Irqfd;
}

/// An eventfd that sends a message while it is open. Dropping it closes it.
pub trait MessageIrqfd: Send {
    /// Sends this message for each signal from now on. A signal from before counts.
    ///
    /// # Errors
    /// The host's. The eventfd is closed then.
    fn open(&mut self, message: RoutedMessage) -> Result<(), IrqfdError>;

    /// Sends nothing from now on: signals stay in the eventfd. On return, no message is being sent.
    fn close(&mut self);
}

impl<T: MessageIrqfdSet + ?Sized> MessageIrqfdSet for Arc<T> {
    type Irqfd = T::Irqfd;

    fn add(&self, eventfd: Arc<OwnedFd>) -> T::Irqfd {
        (**self).add(eventfd)
    }
}

/// Eventfds that send messages to a model, for
/// [`DeviceEventfds`](crate::device_eventfds::DeviceEventfds). They need no GSI.
pub struct MessageEventfdSet {
    poller: Arc<EventfdPoller>,
    sink: Arc<dyn MessageSink>,
}

impl MessageEventfdSet {
    /// Creates an object without eventfds, whose signals `poller` serves. `sink` takes the
    /// messages: a [`Router`](crate::Router), or the monitor's own.
    pub fn new(poller: Arc<EventfdPoller>, sink: Arc<dyn MessageSink>) -> Self {
        Self { poller, sink }
    }
}

impl MessageIrqfdSet for MessageEventfdSet {
    type Irqfd = MessageEventfd;

    fn add(&self, eventfd: Arc<OwnedFd>) -> MessageEventfd {
        let (poller, sink) = (self.poller.clone(), self.sink.clone());
        MessageEventfd { poller, sink, eventfd, polled: None }
    }
}

impl fmt::Debug for MessageEventfdSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEventfdSet").field("poller", &self.poller).finish_non_exhaustive()
    }
}

/// An eventfd of [`MessageEventfdSet`].
pub struct MessageEventfd {
    poller: Arc<EventfdPoller>,
    sink: Arc<dyn MessageSink>,
    eventfd: Arc<OwnedFd>,
    polled: Option<PolledEventfd>,
}

impl MessageIrqfd for MessageEventfd {
    fn open(&mut self, message: RoutedMessage) -> Result<(), IrqfdError> {
        self.close();
        let sink = self.sink.clone();
        let send = move || {
            // A message that leads nowhere is lost, as in the kernel.
            let _ = sink.signal_msi(message);
        };
        self.polled = Some(self.poller.add(self.eventfd.clone(), send)?);
        Ok(())
    }

    fn close(&mut self) {
        self.polled = None;
    }
}

impl fmt::Debug for MessageEventfd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MessageEventfd").field("polled", &self.polled).finish_non_exhaustive()
    }
}
