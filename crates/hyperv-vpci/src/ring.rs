//! Shared-memory rings in VMBus layout, one for each direction.
//!
//! The writer owns the index `in`, and the reader owns `out`. Each end keeps a private copy of its
//! own index and reads only the peer's index from the ring. The peer's index is validated every
//! time, and packets are copied out of the ring before they are interpreted.
//!
//! ```text
//! writer: write the packet ─▶ store in ─▶ load interrupt_mask, out ─▶ signal if empty and unmasked
//! reader: copy the packet ─▶ store out ─▶ load pending_send_size, in ─▶ signal if it fits now
//! sleep:  clear interrupt_mask ─▶ load in ─▶ sleep if still empty
//! ```
//!
//! All of these accesses are sequentially consistent. Therefore, if a writer stores `in` while a
//! reader clears its mask, at least one of them will see the other's store.

mod heap;
mod reader;
#[cfg(feature = "vm-memory")]
mod rust_vmm;
mod writer;

pub use crate::channel::RingError;
pub use heap::HeapRing;
pub use reader::RingReader;
#[cfg(feature = "vm-memory")]
pub use rust_vmm::GuestRing;
pub use writer::RingWriter;

use crate::channel::{Channel, ChannelError, Idle, Notifier, PacketKind, Received};

/// Length of the smallest ring in bytes; other lengths are multiples of it.
pub const PAGE: u32 = 4096;

/// Length of the largest ring in bytes.
const MAX_LENGTH: u32 = 1 << 24;

/// A word on a ring's control page.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Control {
    /// Index of the next packet to be written, in bytes.
    In,
    /// Index of the next packet to be read, in bytes.
    Out,
    /// 1 if the reader does not want signals.
    InterruptMask,
    /// Room that the writer is waiting for, in bytes, or 0.
    PendingSendSize,
    /// Bit 0: [`PendingSendSize`](Self::PendingSendSize) is in use.
    Features,
}

impl Control {
    /// Returns the word's offset in the control page.
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

/// Feature bit of [`Control::PendingSendSize`].
const PENDING_SEND_SIZE: u32 = 1;

/// Memory of a ring: a control page and data. The peer may write to it at any time.
pub trait RingMemory: Send {
    /// Returns the length of the data in bytes, a multiple of [`PAGE`].
    fn length(&self) -> u32;
    /// Loads a control word. The access must be sequentially consistent.
    fn control(&self, word: Control) -> u32;
    /// Stores a control word. The access must be sequentially consistent.
    fn set_control(&self, word: Control, value: u32);
    /// Loads 8 bytes of data at `offset`, which is a multiple of 8 and less than the length.
    fn data(&self, offset: u32) -> [u8; 8];
    /// Stores 8 bytes of data at `offset`, which is a multiple of 8 and less than the length.
    fn set_data(&self, offset: u32, bytes: [u8; 8]);
}

/// Result of a ring operation: whether the peer must be signaled.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[must_use = "a peer that is not signaled may sleep forever"]
pub enum Notify {
    /// The peer may be asleep and has work to do, so it must be signaled.
    Peer,
    /// The peer is awake or has no work to do.
    Nobody,
}

/// Packet types, flags and lengths.
mod packet {
    pub(super) const IN_BAND: u16 = 6;
    pub(super) const COMPLETION: u16 = 11;
    /// Flag: the sender expects a completion.
    pub(super) const COMPLETION_REQUESTED: u16 = 1;
    /// Length of a descriptor in bytes.
    pub(super) const DESCRIPTOR: u32 = 16;
    /// Length of the footer that follows each packet, in bytes.
    pub(super) const FOOTER: u32 = 8;
}

fn check_length(length: u32) -> Result<u32, RingError> {
    let fits = length.is_multiple_of(PAGE) && (PAGE..=MAX_LENGTH).contains(&length);
    if fits { Ok(length) } else { Err(RingError::BadLength(length)) }
}

/// Validates an index that the peer stored or that a saved state contains.
fn check_index(index: u32, length: u32) -> Result<u32, RingError> {
    let fits = index.is_multiple_of(8) && index < length;
    if fits { Ok(index) } else { Err(RingError::BadIndex(index)) }
}

/// Returns the index `bytes` after `index`. Both must be at most `length`.
const fn advance(index: u32, bytes: u32, length: u32) -> u32 {
    let next = index + bytes;
    if next >= length { next - length } else { next }
}

/// Returns the number of bytes from `out` to `in`.
const fn used(inp: u32, out: u32, length: u32) -> u32 {
    if inp >= out { inp - out } else { length - out + inp }
}

/// Returns the number of bytes that can be written. A ring is never completely full: if the indices
/// are equal, it is empty.
const fn free(inp: u32, out: u32, length: u32) -> u32 {
    length - used(inp, out, length) - 8
}

/// A [`Channel`] made of a ring for each direction and a signal to the peer.
#[derive(Debug)]
pub struct RingChannel<M, N> {
    writer: RingWriter<M>,
    reader: RingReader<M>,
    peer: N,
}

/// A channel end's private indices. A VMM must save these indices along with the host's state.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct RingIndices {
    /// Index of the next packet that this end writes.
    pub write: u32,
    /// Index of the next packet that this end reads.
    pub read: u32,
}

impl<M: RingMemory, N: Notifier> RingChannel<M, N> {
    /// Creates an end that writes to `outgoing` and reads from `incoming`. The control pages of new
    /// rings must be zero.
    ///
    /// # Errors
    /// Returns [`RingError::BadLength`] if a ring's length is not valid.
    pub fn new(outgoing: M, incoming: M, peer: N) -> Result<Self, RingError> {
        Self::restore(outgoing, incoming, peer, RingIndices::default())
    }

    /// Creates an end that continues from saved indices.
    ///
    /// # Errors
    /// Returns [`RingError::BadLength`] if a ring's length is not valid, or [`RingError::BadIndex`]
    /// if an index is not valid.
    pub fn restore(outgoing: M, incoming: M, peer: N, at: RingIndices) -> Result<Self, RingError> {
        let writer = RingWriter::new(outgoing, at.write)?;
        let reader = RingReader::new(incoming, at.read)?;
        Ok(Self { writer, reader, peer })
    }

    /// Returns the end's private indices. The VMM must save the indices while the end is not in
    /// use; otherwise, they may not match the rings.
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
        let (received, notify) = match self.reader.read(buffer) {
            Err(ChannelError::TooLong) => {
                let (skipped, notify) = self.reader.skip()?;
                // The peer may have shortened the packet in the meantime.
                let length = buffer.len().saturating_add(1);
                let cut = |of: Received| Received { length: of.length.max(length), ..of };
                (skipped.map(cut), notify)
            }
            read => read?,
        };
        self.tell(notify);
        Ok(received)
    }

    fn capacity(&self) -> usize {
        self.writer.capacity()
    }

    fn skipped(&self) -> u32 {
        self.reader.skipped()
    }

    fn idle(&mut self) -> Result<Idle, ChannelError> {
        Ok(self.reader.idle()?)
    }
}
