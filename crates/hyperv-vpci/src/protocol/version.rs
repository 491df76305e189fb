//! Protocol versions.

use super::{InterruptForm, RelationsForm};
use core::fmt;

/// Protocol version that this crate supports. Version 1.1, which names processors by a mask of 64
/// bits, is not supported: a host refuses it as it refuses an unknown version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Version {
    /// Lowest version with lists of processors in interrupts.
    V1_2,
    /// Adds NUMA nodes to bus relations.
    V1_3,
    /// Extends vectors to 32 bits, which SPIs above 255 need.
    V1_4,
}

impl Version {
    /// All versions from highest to lowest, the order in which a guest proposes them.
    pub const OFFERED: [Self; 3] = [Self::V1_4, Self::V1_3, Self::V1_2];

    /// Decodes a version from a message. Returns `None` if this crate does not support it.
    pub const fn from_wire(wire: u32) -> Option<Self> {
        match wire {
            0x1_0002 => Some(Self::V1_2),
            0x1_0003 => Some(Self::V1_3),
            0x1_0004 => Some(Self::V1_4),
            _ => None,
        }
    }

    /// Returns the version's number in messages: the major version in the upper half, the minor
    /// version in the lower half.
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::V1_2 => 0x1_0002,
            Self::V1_3 => 0x1_0003,
            Self::V1_4 => 0x1_0004,
        }
    }

    /// Returns the form of interrupts under this version.
    pub const fn interrupts(self) -> InterruptForm {
        match self {
            Self::V1_2 | Self::V1_3 => InterruptForm::V2,
            Self::V1_4 => InterruptForm::V3,
        }
    }

    /// Returns the form of bus relations under this version.
    pub const fn relations(self) -> RelationsForm {
        match self {
            Self::V1_2 => RelationsForm::V1,
            Self::V1_3 | Self::V1_4 => RelationsForm::V2,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.to_wire() >> 16, self.to_wire() & 0xffff)
    }
}
