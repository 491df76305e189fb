//! Base registers of a controller's tables and queues.

use super::Stage;
use crate::Cpu;
use core::fmt;

/// The base register of a table or queue in memory. A controller may ignore writes to the register
/// while it uses the memory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(rename_all = "kebab-case"))]
pub enum TableRegister {
    /// `GICR_PROPBASER` of a CPU.
    Propbaser(Cpu),
    /// `GICR_PENDBASER` of a CPU.
    Pendbaser(Cpu),
    /// `GITS_BASER<n>`.
    Baser(u8),
    /// `GITS_CBASER`.
    Cbaser,
}

impl TableRegister {
    /// Returns the stage at which the controller uses the memory.
    pub(super) const fn stage(self) -> Stage {
        match self {
            Self::Propbaser(_) | Self::Pendbaser(_) => Stage::Configuration,
            Self::Baser(_) | Self::Cbaser => Stage::Translation,
        }
    }

    /// Returns the bits that must be 0 when the register is written.
    pub(super) const fn guard(self) -> &'static str {
        match self {
            Self::Propbaser(_) | Self::Pendbaser(_) => "GICR_CTLR.EnableLPIs or RWP",
            Self::Baser(_) | Self::Cbaser => "GITS_CTLR.Enabled",
        }
    }
}

impl fmt::Display for TableRegister {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propbaser(cpu) => write!(f, "GICR_PROPBASER of CPU {cpu}"),
            Self::Pendbaser(cpu) => write!(f, "GICR_PENDBASER of CPU {cpu}"),
            Self::Baser(index) => write!(f, "GITS_BASER{index}"),
            Self::Cbaser => f.write_str("GITS_CBASER"),
        }
    }
}
