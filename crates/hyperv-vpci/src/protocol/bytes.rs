//! Bounded access to little-endian bytes.

/// Reason why bytes are not a valid message, or why a message cannot be emitted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The peer's message ends inside a field.
    #[error("the message ends after {have} of the {needed} bytes of a field")]
    Truncated {
        /// Length of the field in bytes.
        needed: usize,
        /// Number of bytes left.
        have: usize,
    },
    /// The caller's buffer is too short.
    #[error("the buffer is too short: the message needs at least {needed} bytes")]
    NoRoom {
        /// Number of bytes up to the end of the field that did not fit.
        needed: usize,
    },
    /// This end does not accept messages of this type.
    #[error("message type {0:#x} is not accepted by this end")]
    UnknownType(u32),
    /// The peer sent a slot with reserved bits set.
    #[error("slot {0:#x} has reserved bits set")]
    BadSlot(u32),
    /// The peer announced more entries than a message can have.
    #[error("{count} entries exceed the maximum of {limit}")]
    BadCount {
        /// Number of entries that the peer announced.
        count: u32,
        /// Maximum number of entries.
        limit: u32,
    },
    /// The peer requested a power state other than D0 and D3.
    #[error("{0} is not a power state: 1 is D0, 4 is D3")]
    BadPowerState(u32),
    /// The peer requested a delivery mode other than fixed and lowest priority.
    #[error("{0} is not a delivery mode: 0 is fixed, 1 is lowest priority")]
    BadDelivery(u8),
    /// The number of vectors of an interrupt is not a power of two up to 32.
    #[error("an interrupt cannot have {0} vectors: the number must be a power of two up to 32")]
    BadGroup(u16),
    /// An interrupt has no target processor, or processors that its form cannot represent.
    #[error("the interrupt's form cannot represent its set of processors")]
    BadProcessors,
    /// The vector does not fit the interrupt's form. SPIs above 255 need protocol 1.4.
    #[error("vector {vector} does not fit the 8 bits that protocol versions below 1.4 provide")]
    VectorTooWide {
        /// The vector.
        vector: u32,
    },
    /// The peer's retarget request has fields that this end does not support.
    #[error("the retarget request is not for an MSI with a supported set of processors")]
    BadRetarget,
}

/// Either end of a message's bytes. Each layout is written once, as a function that passes its
/// fields through a `Codec`: a [`Writer`] stores the given values and returns them, and a
/// [`Reader`] ignores them and returns the values in the message.
pub(crate) trait Codec {
    fn bytes<const N: usize>(&mut self, value: [u8; N]) -> Result<[u8; N], ProtocolError>;

    /// Passes bytes that are written as zero and not interpreted.
    fn reserved(&mut self, length: usize) -> Result<(), ProtocolError>;

    /// Writes zeros that readers do not require.
    fn padding(&mut self, length: usize) -> Result<(), ProtocolError>;

    fn u8(&mut self, value: u8) -> Result<u8, ProtocolError> {
        self.bytes([value]).map(|[byte]| byte)
    }

    fn u16(&mut self, value: u16) -> Result<u16, ProtocolError> {
        self.bytes(value.to_le_bytes()).map(u16::from_le_bytes)
    }

    fn u32(&mut self, value: u32) -> Result<u32, ProtocolError> {
        self.bytes(value.to_le_bytes()).map(u32::from_le_bytes)
    }

    fn u64(&mut self, value: u64) -> Result<u64, ProtocolError> {
        self.bytes(value.to_le_bytes()).map(u64::from_le_bytes)
    }
}

/// Reads little-endian fields from a message, which may end anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the next `length` bytes.
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], ProtocolError> {
        let truncated = ProtocolError::Truncated { needed: length, have: self.0.len() };
        let (taken, rest) = self.0.split_at_checked(length).ok_or(truncated)?;
        self.0 = rest;
        Ok(taken)
    }
}

impl Codec for Reader<'_> {
    fn bytes<const N: usize>(&mut self, _: [u8; N]) -> Result<[u8; N], ProtocolError> {
        let truncated = ProtocolError::Truncated { needed: N, have: self.0.len() };
        let (taken, rest) = self.0.split_first_chunk().ok_or(truncated)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn reserved(&mut self, length: usize) -> Result<(), ProtocolError> {
        self.take(length).map(drop)
    }

    fn padding(&mut self, _: usize) -> Result<(), ProtocolError> {
        Ok(())
    }
}

/// Writes consecutive little-endian fields.
#[derive(Debug)]
pub(crate) struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl<'a> Writer<'a> {
    pub(crate) const fn new(out: &'a mut [u8]) -> Self {
        Self { out, length: 0 }
    }

    fn room(&mut self, length: usize) -> Result<&mut [u8], ProtocolError> {
        let start = self.length;
        self.length = start.saturating_add(length);
        let room = self.out.get_mut(start..self.length);
        room.ok_or(ProtocolError::NoRoom { needed: self.length })
    }

    pub(crate) fn slice(&mut self, bytes: &[u8]) -> Result<(), ProtocolError> {
        self.room(bytes.len()).map(|room| room.copy_from_slice(bytes))
    }

    /// Returns the number of bytes written.
    pub(crate) const fn length(&self) -> usize {
        self.length
    }
}

impl Codec for Writer<'_> {
    fn bytes<const N: usize>(&mut self, value: [u8; N]) -> Result<[u8; N], ProtocolError> {
        self.slice(&value).map(|()| value)
    }

    fn reserved(&mut self, length: usize) -> Result<(), ProtocolError> {
        self.room(length).map(|room| room.fill(0))
    }

    fn padding(&mut self, length: usize) -> Result<(), ProtocolError> {
        self.reserved(length)
    }
}
