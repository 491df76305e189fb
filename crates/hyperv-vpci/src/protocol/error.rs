//! Errors of messages.

/// Reason for which bytes are no message, or a message cannot be emitted.
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
    #[error("the message needs {needed} bytes, the buffer has fewer")]
    NoRoom {
        /// Number of bytes up to the field that did not fit.
        needed: usize,
    },
    /// The peer's message has a type that this end does not take.
    #[error("message type {0:#x} is not one that this end takes")]
    UnknownType(u32),
    /// The peer names a slot with reserved bits set.
    #[error("slot {0:#x} has reserved bits set")]
    BadSlot(u32),
    /// The peer announces more entries than there can be.
    #[error("{count} entries are more than the {limit} that there can be")]
    BadCount {
        /// Announced number of entries.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// The peer names a power state other than D0 and D3.
    #[error("{0} is no power state")]
    BadPowerState(u32),
    /// The peer names a delivery mode other than fixed and lowest priority.
    #[error("{0} is no delivery mode")]
    BadDelivery(u8),
    /// The number of vectors of an interrupt is no power of two up to 32.
    #[error("{0} vectors are no aligned group of up to 32")]
    BadGroup(u16),
    /// An interrupt names no processor, or more than its form has room for.
    #[error("the interrupt's form has no room for these processors")]
    BadProcessors,
    /// The vector does not fit the interrupt's form: SPIs above 255 need protocol 1.4.
    #[error("vector {vector} needs more than the 8 bits that protocols below 1.4 carry")]
    VectorTooWide {
        /// The vector.
        vector: u32,
    },
    /// The peer's retarget request has fields that this end does not take.
    #[error("the retarget request is for no message-signalled interrupt of one set of processors")]
    BadRetarget,
}
