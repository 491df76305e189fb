//! The options for building a machine.

use super::{ControllerChoice, Population};
use crate::fault::Fault;
use crate::migration::Migration;
use std::num::NonZeroU16;

/// Options for building a machine from its description.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// At most so many CPUs; `None` = as many as the description has.
    pub cpus: Option<NonZeroU16>,
    /// The controllers whose devices take part.
    pub controller: ControllerChoice,
    /// The parameters of the devices.
    pub population: Population,
    /// The INTIDs of direct LPIs.
    pub lpis: LpiNumbers,
    /// The ability of redistributors to stop taking LPIs.
    pub lpi_disabling: LpiDisabling,
    /// The view of the distributor that software gets.
    pub security: SecurityView,
    /// The form in which ITS commands name a redistributor.
    pub targets: TargetAddresses,
    /// The coherence of the controllers' table accesses.
    pub snooping: Snooping,
    /// A defect to put in, to show that a run reports it.
    pub fault: Fault,
    /// The migrations of the interrupt controller during the run.
    pub migration: Migration,
}

/// The INTIDs of direct LPIs, which devices store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LpiNumbers {
    /// Those of 14 INTID bits, the fewest that LPIs take: 8192 of them.
    Few,
    /// Those of 16 INTID bits.
    #[default]
    Short,
    /// Of 17 bits; those that 16 bits can name are somebody else's already.
    Long,
}

impl LpiNumbers {
    /// INTID bits of the machine.
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
    /// It can.
    #[default]
    Possible,
    /// Once set, it stays.
    Impossible,
}

/// The view of the distributor that software gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SecurityView {
    /// The only one there is (`GICD_CTLR.DS` = 1).
    #[default]
    Single,
    /// The Non-secure one beside a Secure one (DS = 0), as below EL3 firmware.
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
    /// As the description says. Where it denies it (`dma-noncoherent`), the registers claim the
    /// opposite: that is why firmware has to say it.
    #[default]
    AsDescribed,
    /// None does, and their registers say so, whatever the description says.
    DeniedByRegisters,
}
