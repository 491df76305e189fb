//! The options for building a machine.

use super::{ControllerChoice, Population};
use crate::fault::Fault;
use crate::migration::Migration;
use std::num::NonZeroU16;

/// Options for building a machine from its description.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Maximum number of CPUs; `None` uses all that the description has.
    pub cpus: Option<NonZeroU16>,
    /// The controllers whose devices take part.
    pub controller: ControllerChoice,
    /// The parameters of the devices.
    pub population: Population,
    /// The INTIDs of direct LPIs.
    pub lpis: LpiNumbers,
    /// Selects whether redistributors can stop taking LPIs.
    pub lpi_disabling: LpiDisabling,
    /// The view of the distributor that software has.
    pub security: SecurityView,
    /// The form in which ITS commands name a redistributor.
    pub targets: TargetAddresses,
    /// The coherence of the controllers' table accesses.
    pub snooping: Snooping,
    /// A deliberate defect, to show that a run reports it.
    pub fault: Fault,
    /// Migrations of the interrupt controller during the run.
    pub migration: Migration,
}

/// The INTIDs of direct LPIs, which devices store in their messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LpiNumbers {
    /// INTIDs of 14 bits, the minimum for LPIs: 8192 LPIs.
    Few,
    /// INTIDs of 16 bits.
    #[default]
    Short,
    /// INTIDs of 17 bits; all INTIDs below 2^16 are already in use.
    Long,
}

impl LpiNumbers {
    /// Returns the machine's number of INTID bits.
    pub(crate) const fn id_bits(self) -> u8 {
        match self {
            Self::Few => 14,
            Self::Short => 16,
            Self::Long => 17,
        }
    }
}

/// The ability to clear `GICR_CTLR.EnableLPIs` (`GICR_CTLR.CES`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LpiDisabling {
    /// Software may clear the bit again.
    #[default]
    Possible,
    /// The bit stays set once software has set it.
    Impossible,
}

/// The view of the distributor that software has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SecurityView {
    /// A single security state (`GICD_CTLR.DS` = 1).
    #[default]
    Single,
    /// The Non-secure view of two security states (DS = 0), as below EL3 firmware.
    NonSecure,
}

/// The form in which ITS commands name a redistributor (`GITS_TYPER.PTA`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetAddresses {
    /// The redistributor's processor number (PTA = 0).
    #[default]
    ProcessorNumbers,
    /// The redistributor's physical address (PTA = 1).
    Physical,
}

/// The coherence of the controllers' table accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Snooping {
    /// The coherence that the description states. Where it denies coherence (`dma-noncoherent`),
    /// the registers claim it, because that is the case in which firmware has to override them.
    #[default]
    AsDescribed,
    /// No controller is coherent, and the registers say so, whatever the description states.
    DeniedByRegisters,
}
