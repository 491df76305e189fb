//! The channel between guest and host: packets in both directions.

use crate::ring_error::RingError;

/// Kind of a packet, and the number that ties a request to its completion.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PacketKind {
    /// The sender expects a completion with this transaction ID.
    Request(u64),
    /// The sender expects nothing.
    Notice,
    /// Completes the request with this transaction ID.
    Completion(u64),
}

/// A packet that was received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Kind of the packet.
    pub kind: PacketKind,
    /// Length of its payload in bytes: rounded up to 8 where a ring carried it.
    pub length: usize,
}

/// Reason for which a channel did not take a packet or has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The peer did not make room yet. It signals once it did.
    #[error("the channel has no room for the packet yet")]
    Full,
    /// The packet is longer than the channel ever has room for.
    #[error("the packet is longer than the channel")]
    TooLong,
    /// The peer broke the channel's rules. Nothing more can be exchanged.
    #[error("the peer broke the channel: {0}")]
    Broken(#[from] RingError),
    /// The peer closed or rescinded the channel. A host's functions no longer send interrupts.
    #[error("the peer closed the channel")]
    Closed,
}

/// Says if an end may sleep until its peer signals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "no signal follows after `Idle::Busy`"]
pub enum Idle {
    /// No packet is waiting. The next one raises a signal.
    Sleep,
    /// A packet is waiting, and no signal announces it.
    Busy,
}

/// One end of a channel. Packets arrive in the order in which they were sent.
///
/// Dropping a guest's end must close the channel: when the drop returns, the host must have stopped
/// sending interrupts for the bus's functions. [`Bus::close`](crate::guest::Bus::close) relies on
/// it.
pub trait Channel: Send {
    /// Sends a packet.
    ///
    /// # Errors
    /// [`ChannelError`]; the packet was not sent then.
    fn send(&mut self, kind: PacketKind, payload: &[u8]) -> Result<(), ChannelError>;

    /// Takes the next packet, and writes its payload to `buffer`. `None` if there is none.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] if the payload does not fit `buffer`: the channel is of no more
    /// use; [`ChannelError::Broken`] and [`ChannelError::Closed`].
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError>;

    /// Returns the number of received packets that were skipped because this end does not know
    /// their types or flags.
    fn skipped(&self) -> u32 {
        0
    }

    /// Asks for a signal with the next packet, and looks once more for one that came before.
    ///
    /// # Errors
    /// [`ChannelError::Broken`] and [`ChannelError::Closed`].
    fn idle(&mut self) -> Result<Idle, ChannelError>;
}

/// Tells the peer that it has something to receive, or room to send: an eventfd, an interrupt.
pub trait Notifier: Send {
    /// Signals the peer. A signal that is pending already is enough.
    fn signal(&self);
}

impl<F: Fn() + Send> Notifier for F {
    fn signal(&self) {
        self();
    }
}

/// An eventfd as the peer's signal.
#[cfg(all(feature = "std", target_os = "linux"))]
#[derive(Debug)]
pub struct EventFd<F>(pub F);

#[cfg(all(feature = "std", target_os = "linux"))]
impl<F: std::os::fd::AsFd + Send> Notifier for EventFd<F> {
    fn signal(&self) {
        // The write fails if the counter is full: then a signal is pending.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}
