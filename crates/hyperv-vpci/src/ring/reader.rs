//! The reading end of a ring.

use super::{
    Control, Notify, RingError, RingMemory, advance, check_index, check_length, free, packet, used,
};
use crate::channel::{ChannelError, Idle, PacketKind, Received};

/// The reading end of a ring.
#[derive(Debug)]
pub struct RingReader<M> {
    memory: M,
    length: u32,
    /// The value of `out` that this end last stored.
    at: u32,
    skipped: u32,
}

/// Maximum number of unknown packets that one read skips. This bounds the work per call.
const MAX_SKIPPED: u32 = 64;

/// Header of a packet, validated against the number of available bytes.
struct Header {
    /// Kind of the packet, or `None` if this end does not know its type or flags.
    kind: Option<PacketKind>,
    /// Offset of the payload from the start of the packet, in bytes.
    offset: u32,
    /// Length of the payload in bytes.
    payload: u32,
    /// Length of the packet and its footer in bytes.
    total: u32,
}

impl<M: RingMemory> RingReader<M> {
    /// Creates a reader that starts at index `at`, which is 0 for a new ring.
    ///
    /// # Errors
    /// Returns [`RingError::BadLength`] or [`RingError::BadIndex`] if the ring's length or the
    /// index is not valid.
    pub fn new(memory: M, at: u32) -> Result<Self, RingError> {
        let length = check_length(memory.length())?;
        let at = check_index(at, length)?;
        Ok(Self { memory, length, at, skipped: 0 })
    }

    /// Copies the next packet's payload to `buffer`. The writer cannot change the copy afterwards.
    /// Skips and [counts](Self::skipped) packets with unknown types or flags. If the second result
    /// is [`Notify::Peer`], the caller must signal the writer, even if no packet is left.
    ///
    /// # Errors
    /// Returns [`ChannelError::TooLong`] if `buffer` is too short for the packet, which the caller
    /// may then [skip](Self::skip), or [`ChannelError::Broken`] if the writer violated the ring's
    /// rules. On error, the packet is not consumed.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<(Option<Received>, Notify), ChannelError> {
        let mut notify = Notify::Nobody;
        for _ in 0..MAX_SKIPPED {
            let inp = check_index(self.memory.control(Control::In), self.length)?;
            let available = used(inp, self.at, self.length);
            if available == 0 {
                break;
            }
            self.memory.set_control(Control::InterruptMask, 1);
            let header = self.header(available)?;
            let received = match header.kind.map(|kind| (kind, self.copy(&header, buffer))) {
                Some((kind, Ok(length))) => Some(Received { kind, length }),
                // The caller must signal the writer before it skips the packet.
                Some((_, Err(_))) if notify == Notify::Peer => break,
                Some((_, Err(error))) => return Err(error),
                None => None,
            };
            if self.consume(header.total) == Notify::Peer {
                notify = Notify::Peer;
            }
            if received.is_some() {
                return Ok((received, notify));
            }
            self.skipped = self.skipped.saturating_add(1);
        }
        // Packets may be left; `idle` reports them.
        Ok((None, notify))
    }

    /// Skips and [counts](Self::skipped) the next packet, whose payload doesn't fit the caller's
    /// buffer. Otherwise like [`read`](Self::read).
    ///
    /// # Errors
    /// Returns [`ChannelError::Broken`] if the writer violated the ring's rules.
    pub fn skip(&mut self) -> Result<(Option<Received>, Notify), ChannelError> {
        let inp = check_index(self.memory.control(Control::In), self.length)?;
        let available = used(inp, self.at, self.length);
        if available == 0 {
            return Ok((None, Notify::Nobody));
        }
        let header = self.header(available)?;
        self.skipped = self.skipped.saturating_add(1);
        let length = header.payload as usize;
        let received = header.kind.map(|kind| Received { kind, length });
        Ok((received, self.consume(header.total)))
    }

    /// Returns the number of packets that were skipped because their types or flags are unknown, or
    /// because they were too long.
    pub const fn skipped(&self) -> u32 {
        self.skipped
    }

    /// Copies a packet's payload and returns its length.
    fn copy(&self, header: &Header, buffer: &mut [u8]) -> Result<usize, ChannelError> {
        let length = usize::try_from(header.payload).map_err(|_| ChannelError::TooLong)?;
        let room = buffer.get_mut(..length).ok_or(ChannelError::TooLong)?;
        let mut from = advance(self.at, header.offset, self.length);
        for chunk in room.chunks_mut(8) {
            let word = self.memory.data(from);
            chunk.iter_mut().zip(word).for_each(|(to, from)| *to = from);
            from = advance(from, 8, self.length);
        }
        Ok(length)
    }

    /// Frees the next packet's room (`total` bytes).
    fn consume(&mut self, total: u32) -> Notify {
        let start = self.at;
        self.at = advance(start, total, self.length);
        self.memory.set_control(Control::Out, self.at);
        self.notify(start)
    }

    /// Unmasks signals, then checks whether a packet arrived before they were unmasked.
    ///
    /// # Errors
    /// Returns [`RingError::BadIndex`] if the writer's index is not valid.
    pub fn idle(&self) -> Result<Idle, RingError> {
        self.memory.set_control(Control::InterruptMask, 0);
        let inp = check_index(self.memory.control(Control::In), self.length)?;
        Ok(if inp == self.at { Idle::Sleep } else { Idle::Busy })
    }

    /// Returns the index of the next packet.
    pub const fn index(&self) -> u32 {
        self.at
    }

    fn header(&self, available: u32) -> Result<Header, RingError> {
        let [k0, k1, h0, h1, l0, l1, f0, f1] = self.memory.data(self.at);
        let id = u64::from_le_bytes(self.memory.data(advance(self.at, 8, self.length)));
        let offset = u32::from(u16::from_le_bytes([h0, h1])) * 8;
        let length = u32::from(u16::from_le_bytes([l0, l1])) * 8;
        let (number, flags) = (u16::from_le_bytes([k0, k1]), u16::from_le_bytes([f0, f1]));
        let total = length + packet::FOOTER;
        if offset < packet::DESCRIPTOR || length < offset || total > available {
            return Err(RingError::BadPacket { length, header: offset, available });
        }
        let kind = match (number, flags) {
            (packet::IN_BAND, packet::COMPLETION_REQUESTED) => Some(PacketKind::Request(id)),
            (packet::IN_BAND, 0) => Some(PacketKind::Notice),
            (packet::COMPLETION, 0 | packet::COMPLETION_REQUESTED) => {
                Some(PacketKind::Completion(id))
            }
            _ => None,
        };
        Ok(Header { kind, offset, payload: length - offset, total })
    }

    /// Decides whether to signal a waiting writer, i.e. whether moving `out` on from `start` made
    /// room for the packet that the writer wants to send. Some writers wait for an empty ring by
    /// asking for the ring's length or one byte less, which is more room than even an empty ring
    /// has.
    fn notify(&self, start: u32) -> Notify {
        let waits_for = self.memory.control(Control::PendingSendSize).min(self.length - 8) & !7;
        if waits_for == 0 {
            return Notify::Nobody;
        }
        // Load `in` only after the size. The writer may have filled the ring while we copied the
        // packet; with an older `in`, there would seem to have been room for its packet all along.
        let Ok(inp) = check_index(self.memory.control(Control::In), self.length) else {
            // The next read reports the error.
            return Notify::Nobody;
        };
        let (before, after) = (free(inp, start, self.length), free(inp, self.at, self.length));
        if before < waits_for && after >= waits_for { Notify::Peer } else { Notify::Nobody }
    }
}
