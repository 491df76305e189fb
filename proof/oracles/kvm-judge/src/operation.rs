//! Orders to the guest: accesses to registers, which its program reads from memory.

/// An access to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Stores a word of 32 bits.
    Write32(u64, u32),
    /// Stores a word of 64 bits.
    Write64(u64, u64),
    /// Loads a word of 32 bits.
    Read32(u64),
    /// Loads a word of 64 bits.
    Read64(u64),
}

impl Operation {
    /// Bytes of one in memory: kind, address, value.
    pub const BYTES: usize = 24;
    /// Terminator of a list of operations.
    pub const END: [u8; Self::BYTES] = [0; Self::BYTES];

    /// As the guest's program reads it.
    pub fn encode(self) -> [u8; Self::BYTES] {
        let (kind, address, value) = match self {
            Self::Write32(address, value) => (1_u64, address, u64::from(value)),
            Self::Write64(address, value) => (2, address, value),
            Self::Read32(address) => (3, address, 0),
            Self::Read64(address) => (4, address, 0),
        };
        let mut bytes = Self::END;
        for (place, word) in bytes.chunks_mut(8).zip([kind, address, value]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}
