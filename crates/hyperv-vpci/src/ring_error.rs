//! Errors of rings.

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
