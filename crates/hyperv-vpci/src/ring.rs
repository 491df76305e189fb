//! Rings in shared memory, as VMBus lays them out: one for each direction.
//!
//! The writer owns `in`, the reader owns `out`; each keeps its own index to itself and reads
//! that of its peer. A peer's index is checked each time it is read, and packets are copied out
//! before anything looks at them.
//!
//! ```text
//! writer: write the packet ─▶ store in ─▶ load interrupt_mask, out ─▶ signal if empty and unmasked
//! reader: copy the packet ─▶ store out ─▶ load pending_send_size ─▶ signal if there is room now
//! sleep:  clear interrupt_mask ─▶ load in ─▶ sleep if still empty
//! ```
//!
//! All these accesses are sequentially consistent. Of a writer that stores `in` and a reader that
//! clears its mask at the same time, at least one sees the other's store.

mod heap;
mod reader;
#[cfg(feature = "vm-memory")]
mod rust_vmm;
mod writer;

pub use crate::ring_error::RingError;
pub use heap::HeapRing;
pub use reader::RingReader;
#[cfg(feature = "vm-memory")]
pub use rust_vmm::GuestRing;
pub use writer::RingWriter;

use crate::channel::{Channel, ChannelError, Idle, Notifier, PacketKind, Received};

/// Smallest ring, and the unit of lengths, in bytes.
pub const PAGE: u32 = 4096;

/// Largest ring in bytes.
const MAX_LENGTH: u32 = 1 << 24;

/// A word of a ring's control page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Control {
    /// Index of the next packet to be written, in bytes.
    In,
    /// Index of the next packet to be read, in bytes.
    Out,
    /// 1 if the reader wants no signals.
    InterruptMask,
    /// Room that the writer waits for, in bytes; 0 if it does not wait.
    PendingSendSize,
    /// Bit 0: [`PendingSendSize`](Self::PendingSendSize) is in use.
    Features,
}

impl Control {
    /// Offset in the control page.
    pub const fn offset(self) -> u32 {
        match self {
            Self::In => 0,
            Self::Out => 4,
            Self::InterruptMask => 8,
            Self::PendingSendSize => 12,
            Self::Features => 64,
        }
    }
}

/// The feature bit of [`Control::PendingSendSize`].
const PENDING_SEND_SIZE: u32 = 1;

/// A ring's memory: a control page and data. The peer writes to it at any time.
pub trait RingMemory: Send {
    /// Length of the data in bytes: a multiple of [`PAGE`].
    fn length(&self) -> u32;
    /// Loads a control word, sequentially consistent.
    fn control(&self, word: Control) -> u32;
    /// Stores a control word, sequentially consistent.
    fn set_control(&self, word: Control, value: u32);
    /// Loads 8 bytes of data at `offset`, a multiple of 8 below the length.
    fn data(&self, offset: u32) -> [u8; 8];
    /// Stores 8 bytes of data, likewise.
    fn set_data(&self, offset: u32, bytes: [u8; 8]);
}

/// Result of a step: must the peer be told?
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "a peer that is not told may sleep for ever"]
pub enum Notify {
    /// The peer may be asleep and has something to do.
    Peer,
    /// The peer is awake, or has nothing to do.
    Nobody,
}

/// Types of packets.
mod packet {
    pub(super) const IN_BAND: u16 = 6;
    pub(super) const COMPLETION: u16 = 11;
    /// The sender wants a completion.
    pub(super) const COMPLETION_REQUESTED: u16 = 1;
    /// Length of a descriptor in bytes.
    pub(super) const DESCRIPTOR: u32 = 16;
    /// Length of what follows each packet.
    pub(super) const FOOTER: u32 = 8;
}

fn check_length(length: u32) -> Result<u32, RingError> {
    let fits = length.is_multiple_of(PAGE) && (PAGE..=MAX_LENGTH).contains(&length);
    if fits { Ok(length) } else { Err(RingError::BadLength(length)) }
}

/// An index of the peer's, or one from a saved state.
fn check_index(index: u32, length: u32) -> Result<u32, RingError> {
    let fits = index.is_multiple_of(8) && index < length;
    if fits { Ok(index) } else { Err(RingError::BadIndex(index)) }
}

/// The place `bytes` after `index`. Both are at most `length`.
const fn advance(index: u32, bytes: u32, length: u32) -> u32 {
    let next = index + bytes;
    if next >= length { next - length } else { next }
}

/// Number of bytes from `out` up to `in`.
const fn used(inp: u32, out: u32, length: u32) -> u32 {
    if inp >= out { inp - out } else { length - out + inp }
}

/// Number of bytes that can be written. A ring is never full: equal indices mean empty.
const fn free(inp: u32, out: u32, length: u32) -> u32 {
    length - used(inp, out, length) - 8
}

/// Both directions and the peer's signal: a [`Channel`].
#[derive(Debug)]
pub struct RingChannel<M, N> {
    writer: RingWriter<M>,
    reader: RingReader<M>,
    peer: N,
}

/// Indices of a channel's own end, which its peer cannot reach: a part of a saved state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct RingIndices {
    /// Index of the next packet that this end writes.
    pub write: u32,
    /// Index of the next packet that this end reads.
    pub read: u32,
}

impl<M: RingMemory, N: Notifier> RingChannel<M, N> {
    /// An end that writes to `outgoing` and reads `incoming`. New rings begin with zeros.
    ///
    /// # Errors
    /// [`RingError::BadLength`].
    pub fn new(outgoing: M, incoming: M, peer: N) -> Result<Self, RingError> {
        Self::restore(outgoing, incoming, peer, RingIndices::default())
    }

    /// An end that goes on where a saved one stopped.
    ///
    /// # Errors
    /// [`RingError::BadLength`]; [`RingError::BadIndex`] for an index of the saved state.
    pub fn restore(outgoing: M, incoming: M, peer: N, at: RingIndices) -> Result<Self, RingError> {
        let writer = RingWriter::new(outgoing, at.write)?;
        let reader = RingReader::new(incoming, at.read)?;
        Ok(Self { writer, reader, peer })
    }

    /// The end's own indices, to be saved while it is not in use.
    pub fn indices(&self) -> RingIndices {
        RingIndices { write: self.writer.index(), read: self.reader.index() }
    }

    fn tell(&self, notify: Notify) {
        if notify == Notify::Peer {
            self.peer.signal();
        }
    }
}

impl<M: RingMemory, N: Notifier> Channel for RingChannel<M, N> {
    fn send(&mut self, kind: PacketKind, payload: &[u8]) -> Result<(), ChannelError> {
        let notify = self.writer.write(kind, payload)?;
        self.tell(notify);
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<Received>, ChannelError> {
        let (received, notify) = self.reader.read(buffer)?;
        self.tell(notify);
        Ok(received)
    }

    fn skipped(&self) -> u32 {
        self.reader.skipped()
    }

    fn idle(&mut self) -> Result<Idle, ChannelError> {
        Ok(self.reader.idle()?)
    }
}
