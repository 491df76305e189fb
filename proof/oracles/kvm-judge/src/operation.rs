//! Operations for the guest: register accesses that the guest's program reads from memory.

/// An access to a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Operation {
    /// Stores a 32-bit word.
    Write32(u64, u32),
    /// Stores a 64-bit word.
    Write64(u64, u64),
    /// Loads a 32-bit word.
    Read32(u64),
    /// Loads a 64-bit word.
    Read64(u64),
}

impl Operation {
    /// Size of an operation (kind, address, value) in memory, in bytes.
    pub const BYTES: usize = 24;
    /// Marks the end of a list of operations.
    pub const END: [u8; Self::BYTES] = [0; Self::BYTES];

    /// Encodes the operation for the guest's program.
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
