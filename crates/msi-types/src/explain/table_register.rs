//! Registers that name a controller's tables.

use super::Stage;
use crate::Cpu;
use core::fmt;

/// A register that names a table or queue in memory. Controllers ignore writes to it while they use
/// the memory.
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
    /// The stage at which the memory is used.
    pub(super) const fn stage(self) -> Stage {
        match self {
            Self::Propbaser(_) | Self::Pendbaser(_) => Stage::Configuration,
            Self::Baser(_) | Self::Cbaser => Stage::Translation,
        }
    }

    /// The bit that must be 0 while the register is written.
    pub(super) const fn guard(self) -> &'static str {
        match self {
            Self::Propbaser(_) | Self::Pendbaser(_) => "GICR_CTLR.EnableLPIs",
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
