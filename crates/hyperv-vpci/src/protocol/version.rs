//! Protocol versions.

use super::{InterruptForm, RelationsForm, ResourcesForm};
use core::fmt;

/// Protocol version that this crate supports.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[non_exhaustive]
pub enum Version {
    /// Version of Windows 10.
    V1_1,
    /// Adds lists of processors to interrupts.
    V1_2,
    /// Adds NUMA nodes to bus relations.
    V1_3,
    /// Extends vectors to 32 bits, which SPIs above 255 need.
    V1_4,
}

impl Version {
    /// All versions from highest to lowest, the order in which a guest proposes them.
    pub const OFFERED: [Self; 4] = [Self::V1_4, Self::V1_3, Self::V1_2, Self::V1_1];

    /// Decodes a version from a message. Returns `None` if this crate does not support it.
    pub const fn from_wire(wire: u32) -> Option<Self> {
        match wire {
            0x1_0001 => Some(Self::V1_1),
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
            Self::V1_1 => 0x1_0001,
            Self::V1_2 => 0x1_0002,
            Self::V1_3 => 0x1_0003,
            Self::V1_4 => 0x1_0004,
        }
    }

    /// Returns the form of interrupts under this version.
    pub const fn interrupts(self) -> InterruptForm {
        match self {
            Self::V1_1 => InterruptForm::V1,
            Self::V1_2 | Self::V1_3 => InterruptForm::V2,
            Self::V1_4 => InterruptForm::V3,
        }
    }

    /// Returns the highest VP index that interrupts can target in this version: masks cover 64
    /// processors, sparse sets 4096.
    pub const fn highest_processor(self) -> u16 {
        match self {
            Self::V1_1 => 63,
            Self::V1_2 | Self::V1_3 | Self::V1_4 => 4095,
        }
    }

    /// Returns the form of bus relations under this version.
    pub const fn relations(self) -> RelationsForm {
        match self {
            Self::V1_1 | Self::V1_2 => RelationsForm::V1,
            Self::V1_3 | Self::V1_4 => RelationsForm::V2,
        }
    }

    /// Returns the form in which guests assign resources under this version. From 1.2 on, this is
    /// the second form, as in Linux.
    pub const fn resources(self) -> ResourcesForm {
        match self {
            Self::V1_1 => ResourcesForm::V1,
            Self::V1_2 | Self::V1_3 | Self::V1_4 => ResourcesForm::V2,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.to_wire() >> 16, self.to_wire() & 0xffff)
    }
}
