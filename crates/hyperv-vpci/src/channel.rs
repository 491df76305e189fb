//! The channel between guest and host, which carries packets both ways.

/// Packet type, with the transaction ID that a request and its completion share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum PacketKind {
    /// The sender expects a completion with this transaction ID.
    Request(u64),
    /// The sender does not expect a completion.
    Notice,
    /// The packet completes the request with this transaction ID.
    Completion(u64),
}

/// A received packet's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Received {
    /// Kind of the packet.
    pub kind: PacketKind,
    /// Payload length in bytes. A ring rounds the length up to a multiple of 8. The length exceeds
    /// the receiver's buffer if the packet was too long and was skipped.
    pub length: usize,
}

impl Received {
    /// Returns the payload in the buffer that was passed to [`Channel::receive`], or `None` if the
    /// packet was longer than the buffer and was skipped.
    pub fn payload<'a>(&self, buffer: &'a [u8]) -> Option<&'a [u8]> {
        buffer.get(..self.length)
    }
}

/// Reason why a channel could not send or receive a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The channel is full. The peer signals once it has made room.
    #[error("the channel has no room for the packet yet")]
    Full,
    /// The packet exceeds the [capacity](Channel::capacity) of the channel.
    #[error("the packet is longer than the channel or the buffer permits")]
    TooLong,
    /// The peer broke the channel's rules. The channel can no longer be used.
    #[error("the peer violated the channel's rules: {0}")]
    Broken(#[from] RingError),
    /// The peer closed or rescinded the channel. A host's functions have stopped sending
    /// interrupts.
    #[error("the peer closed the channel")]
    Closed,
}

/// Result of [`Channel::idle`]: whether this end may sleep until its peer signals.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "no signal follows after `Idle::Busy`"]
pub enum Idle {
    /// No packet is waiting, and the next one raises a signal.
    Sleep,
    /// A packet is waiting. The peer will not signal for this packet.
    Busy,
}

/// One end of a channel. Packets must arrive in the order in which they were sent.
///
/// Dropping a guest's end must close the channel: when the drop returns, the host must no longer
/// send interrupts for the bus's functions. [`Bus::close`](crate::guest::Bus::close) relies on
/// this.
pub trait Channel: Send {
    /// Sends a packet.
    ///
    /// # Errors
    /// Returns [`ChannelError`] if the packet was not sent.
    fn send(&mut self, kind: PacketKind, payload: &[u8]) -> Result<(), ChannelError>;

    /// Returns the length in bytes of the longest payload that can be sent. The default is that any
    /// length can.
    fn capacity(&self) -> usize {
        usize::MAX
    }

    /// Receives the next packet and copies its payload to `buffer`. Returns `None` if no packet is
    /// waiting. Implementations must skip and [count](Self::skipped) a packet whose payload does
    /// not fit, and return its kind and its true length, because the peer may expect a completion.
    /// Otherwise, a peer that knows longer messages than this end would lose the channel. Use
    /// [`Received::payload`] to find the payload: slicing the buffer would panic.
    ///
    /// # Errors
    /// Returns [`ChannelError::Broken`] or [`ChannelError::Closed`] if the channel failed. The
    /// channel must not be used after an error.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError>;

    /// Returns the number of received packets that were skipped because this end doesn't know their
    /// types or flags, or because they didn't fit the buffer.
    fn skipped(&self) -> u32 {
        0
    }

    /// Asks for a signal on the next packet, then checks once more for a packet that arrived before
    /// the request took effect.
    ///
    /// # Errors
    /// Returns [`ChannelError::Broken`] or [`ChannelError::Closed`] if the channel failed.
    fn idle(&mut self) -> Result<Idle, ChannelError>;
}

/// Signal to the peer that a packet or room for one is available, e.g. an eventfd or an interrupt.
pub trait Notifier: Send {
    /// Signals the peer. A signal may merge with one that is still pending.
    fn signal(&self);
}

impl<F: Fn() + Send> Notifier for F {
    fn signal(&self) {
        self();
    }
}

/// Notifier that writes to an eventfd.
#[cfg(all(feature = "std", target_os = "linux"))]
#[derive(Debug)]
pub struct EventFd<F>(pub F);

#[cfg(all(feature = "std", target_os = "linux"))]
impl<F: std::os::fd::AsFd + Send> Notifier for EventFd<F> {
    fn signal(&self) {
        // This only fails if the counter is full, in which case a signal is already pending.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Violation of a ring's rules. The peer is at fault unless a variant says otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The caller's memory does not have the length of a ring.
    #[error("a ring cannot have {0} bytes: its length must be a multiple of 4096 up to 16 MiB")]
    BadLength(u32),
    /// The index is outside the ring or is not a multiple of 8.
    #[error("index {0:#x} is outside the ring or unaligned")]
    BadIndex(u32),
    /// The packet is shorter than its header, or longer than the available data.
    #[error("a packet of {length} bytes with a header of {header} cannot lie in {available} bytes")]
    BadPacket {
        /// Length of the packet in bytes.
        length: u32,
        /// Offset of the packet's payload in bytes.
        header: u32,
        /// Number of bytes between the indices.
        available: u32,
    },
    /// The heap is exhausted.
    #[error("out of memory for the ring's pages")]
    NoMemory,
}
