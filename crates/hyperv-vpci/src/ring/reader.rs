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
}

/// A packet's header, checked against what was written.
struct Header {
    kind: PacketKind,
    /// Offset of the payload from the packet's begin, in bytes.
    offset: u32,
    /// Length of the payload in bytes.
    payload: u32,
    /// Length of all in bytes, with the footer.
    total: u32,
}

impl<M: RingMemory> RingReader<M> {
    /// A reader that begins at index `at`: 0 for a new ring.
    ///
    /// # Errors
    /// [`RingError::BadLength`], [`RingError::BadIndex`].
    pub fn new(memory: M, at: u32) -> Result<Self, RingError> {
        let length = check_length(memory.length())?;
        let at = check_index(at, length)?;
        Ok(Self { memory, length, at })
    }

    /// Copies the next packet's payload to `buffer`; `None` if the ring is empty. The writer
    /// cannot change afterwards what was copied.
    ///
    /// # Errors
    /// [`ChannelError::TooLong`] if `buffer` is too short; [`ChannelError::Broken`]. The packet
    /// stays then.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<Option<(Received, Notify)>, ChannelError> {
        let inp = check_index(self.memory.control(Control::In), self.length)?;
        let available = used(inp, self.at, self.length);
        if available == 0 {
            return Ok(None);
        }
        self.memory.set_control(Control::InterruptMask, 1);
        let header = self.header(available)?;
        let length = usize::try_from(header.payload).map_err(|_| ChannelError::TooLong)?;
        let room = buffer.get_mut(..length).ok_or(ChannelError::TooLong)?;
        let mut from = advance(self.at, header.offset, self.length);
        for chunk in room.chunks_mut(8) {
            let word = self.memory.data(from);
            chunk.iter_mut().zip(word).for_each(|(to, from)| *to = from);
            from = advance(from, 8, self.length);
        }
        let before = free(inp, self.at, self.length);
        self.at = advance(self.at, header.total, self.length);
        self.memory.set_control(Control::Out, self.at);
        let notify = self.notify(before, free(inp, self.at, self.length));
        Ok(Some((Received { kind: header.kind, length }, notify)))
    }

    /// Unmasks signals, and looks for a packet that came before.
    ///
    /// # Errors
    /// [`RingError::BadIndex`].
    pub fn idle(&self) -> Result<Idle, RingError> {
        self.memory.set_control(Control::InterruptMask, 0);
        let inp = check_index(self.memory.control(Control::In), self.length)?;
        Ok(if inp == self.at { Idle::Sleep } else { Idle::Busy })
    }

    /// The index of the next packet.
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
            (_, 2..) => return Err(RingError::BadFlags(flags)),
            (packet::IN_BAND, packet::COMPLETION_REQUESTED) => PacketKind::Request(id),
            (packet::IN_BAND, _) => PacketKind::Notice,
            (packet::COMPLETION, _) => PacketKind::Completion(id),
            (other, _) => return Err(RingError::BadType(other)),
        };
        Ok(Header { kind, offset, payload: length - offset, total })
    }

    /// A writer that waits is told when its packet has room, and not before.
    fn notify(&self, before: u32, after: u32) -> Notify {
        let waits_for = self.memory.control(Control::PendingSendSize);
        let now = waits_for != 0 && before < waits_for && after >= waits_for;
        if now { Notify::Peer } else { Notify::Nobody }
    }
}
