//! Versions of the protocol.

use super::{InterruptForm, RelationsForm, ResourcesForm};
use core::fmt;

/// A version of the protocol that both ends speak.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Version {
    /// Windows 10.
    V1_1,
    /// Interrupts name lists of processors.
    V1_2,
    /// Bus relations carry NUMA nodes.
    V1_3,
    /// Interrupts carry 32 bits of vector: SPIs above 255.
    V1_4,
}

impl Version {
    /// All versions, the highest first: the order in which a guest asks.
    pub const OFFERED: [Self; 4] = [Self::V1_4, Self::V1_3, Self::V1_2, Self::V1_1];

    /// The version as messages carry it; `None` for one that this crate does not speak.
    pub const fn from_wire(wire: u32) -> Option<Self> {
        match wire {
            0x1_0001 => Some(Self::V1_1),
            0x1_0002 => Some(Self::V1_2),
            0x1_0003 => Some(Self::V1_3),
            0x1_0004 => Some(Self::V1_4),
            _ => None,
        }
    }

    /// The number in messages: major version in the upper half, minor in the lower.
    pub const fn to_wire(self) -> u32 {
        match self {
            Self::V1_1 => 0x1_0001,
            Self::V1_2 => 0x1_0002,
            Self::V1_3 => 0x1_0003,
            Self::V1_4 => 0x1_0004,
        }
    }

    /// The form of interrupts under this version.
    pub const fn interrupts(self) -> InterruptForm {
        match self {
            Self::V1_1 => InterruptForm::V1,
            Self::V1_2 | Self::V1_3 => InterruptForm::V2,
            Self::V1_4 => InterruptForm::V3,
        }
    }

    /// Returns the highest VP index that interrupts under this version can name: masks have 64
    /// processors, sparse sets 4096.
    pub const fn highest_processor(self) -> u16 {
        match self {
            Self::V1_1 => 63,
            Self::V1_2 | Self::V1_3 | Self::V1_4 => 4095,
        }
    }

    /// The form of bus relations under this version.
    pub const fn relations(self) -> RelationsForm {
        match self {
            Self::V1_1 | Self::V1_2 => RelationsForm::V1,
            Self::V1_3 | Self::V1_4 => RelationsForm::V2,
        }
    }

    /// The form in which guests assign resources under this version. Linux keeps to the second
    /// form from 1.2 on.
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
