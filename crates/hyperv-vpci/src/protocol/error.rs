//! Errors from parsing and emitting messages.

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
