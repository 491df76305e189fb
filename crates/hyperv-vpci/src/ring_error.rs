//! Errors of rings.

/// A violation of a ring's rules: by the peer, unless said otherwise.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The caller's memory has no length that a ring can have.
    #[error("{0} bytes are no length of a ring")]
    BadLength(u32),
    /// The index lies outside the ring, or between its units.
    #[error("index {0:#x} is no place in the ring")]
    BadIndex(u32),
    /// The packet is shorter than its header, or longer than what was written.
    #[error("a packet of {length} bytes with a header of {header} lies in {available} bytes")]
    BadPacket {
        /// Length of the packet in bytes.
        length: u32,
        /// Offset of its payload in bytes.
        header: u32,
        /// Number of bytes between the indices.
        available: u32,
    },
    /// The heap is exhausted.
    #[error("no memory for the ring's pages")]
    NoMemory,
}
