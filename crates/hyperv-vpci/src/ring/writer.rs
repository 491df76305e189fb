//! The writing end of a ring.

use super::{
    Control, Notify, PENDING_SEND_SIZE, RingError, RingMemory, advance, check_index, check_length,
    free, packet,
};
use crate::channel::{ChannelError, PacketKind};

/// The writing end of a ring.
#[derive(Debug)]
pub struct RingWriter<M> {
    memory: M,
    length: u32,
    /// The value of `in` that this end last stored.
    at: u32,
}

impl<M: RingMemory> RingWriter<M> {
    /// Creates a writer that starts at index `at`, which is 0 for a new ring.
    ///
    /// # Errors
    /// Returns [`RingError::BadLength`] or [`RingError::BadIndex`] if the ring's length or the
    /// index is not valid.
    pub fn new(memory: M, at: u32) -> Result<Self, RingError> {
        let length = check_length(memory.length())?;
        let at = check_index(at, length)?;
        memory.set_control(Control::Features, PENDING_SEND_SIZE);
        Ok(Self { memory, length, at })
    }

    /// Writes a packet. Callers must signal the reader if the result is [`Notify::Peer`].
    ///
    /// # Errors
    /// Returns [`ChannelError::Full`] if the ring has no room for the packet; the reader signals as
    /// soon as it has made room. Returns [`ChannelError::TooLong`] if the packet never fits, or
    /// [`ChannelError::Broken`] if the reader violated the ring's rules.
    pub fn write(&mut self, kind: PacketKind, payload: &[u8]) -> Result<Notify, ChannelError> {
        let words = self.check_room(payload.len())?;
        let (start, length8) = (self.at, words + 2);
        let [l0, l1] = length8.to_le_bytes();
        let (number, flags, transaction) = match kind {
            PacketKind::Request(id) => (packet::IN_BAND, packet::COMPLETION_REQUESTED, id),
            PacketKind::Notice => (packet::IN_BAND, 0, 0),
            PacketKind::Completion(id) => (packet::COMPLETION, 0, id),
        };
        let ([k0, k1], [f0, f1]) = (number.to_le_bytes(), flags.to_le_bytes());
        let mut next = start;
        next = self.put(next, [k0, k1, 2, 0, l0, l1, f0, f1]);
        next = self.put(next, transaction.to_le_bytes());
        for chunk in payload.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            next = self.put(next, word);
        }
        let [s0, s1, s2, s3] = start.to_le_bytes();
        self.at = self.put(next, [0, 0, 0, 0, s0, s1, s2, s3]);
        self.memory.set_control(Control::In, self.at);
        self.memory.set_control(Control::PendingSendSize, 0);
        Ok(self.notify(start))
    }

    /// Returns the length of a payload in 8-byte words if the ring has room for it. Otherwise,
    /// requests a signal from the reader and fails.
    fn check_room(&self, payload: usize) -> Result<u16, ChannelError> {
        let words = u16::try_from(payload.div_ceil(8)).map_err(|_| ChannelError::TooLong)?;
        if payload > self.capacity() {
            return Err(ChannelError::TooLong);
        }
        let needed = packet::DESCRIPTOR + u32::from(words) * 8 + packet::FOOTER;
        if needed <= self.free()? {
            return Ok(words);
        }
        self.memory.set_control(Control::PendingSendSize, needed);
        // The reader may have made room before it saw that we're waiting.
        if needed <= self.free()? { Ok(words) } else { Err(ChannelError::Full) }
    }

    /// Returns the length in bytes of the longest payload that fits the empty ring and its packet's
    /// length field.
    pub fn capacity(&self) -> usize {
        let in_ring = self.length - 8 - packet::FOOTER;
        let packet = in_ring.min(u32::from(u16::MAX) * 8);
        (packet - packet::DESCRIPTOR) as usize
    }

    /// Returns the index of the next packet.
    pub const fn index(&self) -> u32 {
        self.at
    }

    fn free(&self) -> Result<u32, RingError> {
        let out = check_index(self.memory.control(Control::Out), self.length)?;
        Ok(free(self.at, out, self.length))
    }

    fn put(&self, at: u32, bytes: [u8; 8]) -> u32 {
        self.memory.set_data(at, bytes);
        advance(at, 8, self.length)
    }

    /// Decides whether to signal the reader, which may be asleep if it has read all packets except
    /// this one.
    fn notify(&self, start: u32) -> Notify {
        let masked = self.memory.control(Control::InterruptMask) != 0;
        let was_empty = self.memory.control(Control::Out) == start;
        if !masked && was_empty { Notify::Peer } else { Notify::Nobody }
    }
}
