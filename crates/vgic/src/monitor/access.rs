//! Widths of register accesses.

/// Width of an access to a register frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum AccessWidth {
    /// One byte.
    Byte,
    /// Two bytes.
    Half,
    /// Four bytes.
    Word,
    /// Eight bytes.
    Double,
}

/// Error for an access size other than 1, 2, 4 or 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a register access has 1, 2, 4 or 8 bytes, not {0}")]
pub struct BadWidth(pub usize);

impl AccessWidth {
    /// Returns the width in bytes: 1, 2, 4 or 8.
    pub const fn bytes(self) -> u32 {
        1 << self as u32
    }

    /// Returns a mask that covers this width.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - 8 * self.bytes())
    }
}

impl TryFrom<usize> for AccessWidth {
    type Error = BadWidth;

    fn try_from(bytes: usize) -> Result<Self, BadWidth> {
        match bytes {
            1 => Ok(Self::Byte),
            2 => Ok(Self::Half),
            4 => Ok(Self::Word),
            8 => Ok(Self::Double),
            other => Err(BadWidth(other)),
        }
    }
}
