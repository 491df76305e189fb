//! Options for building a machine.

use super::{ControllerChoice, Population};
use crate::fault::Fault;
use crate::migration::Migration;
use crate::trace::Recorder;
use std::num::NonZeroU16;
use std::sync::Arc;

pub use vgic::SecurityView;

/// Options for building a machine from its description.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// Maximum number of CPUs. `None` uses all CPUs that firmware describes.
    pub cpus: Option<NonZeroU16>,
    /// Maximum number of devices. The report names the others. `None` uses all devices.
    pub devices: Option<usize>,
    /// The controllers whose devices take part.
    pub controller: ControllerChoice,
    /// The devices' parameters.
    pub population: Population,
    /// The INTIDs of direct LPIs.
    pub lpis: LpiNumbers,
    /// Selects whether software can clear `GICR_CTLR.EnableLPIs`.
    pub lpi_disabling: LpiDisabling,
    /// The software's view of the distributor.
    pub security: SecurityView,
    /// How ITS commands identify a redistributor.
    pub targets: TargetAddresses,
    /// The coherence of the controllers' table accesses.
    pub snooping: Snooping,
    /// A deliberate defect, to show that runs report it.
    pub fault: Fault,
    /// Migrations of the interrupt controller during the run.
    pub migration: Migration,
    /// Recorder of the run's events. `None` records nothing.
    pub recorder: Option<Arc<Recorder>>,
}

/// The INTIDs of direct LPIs, which devices store in their messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LpiNumbers {
    /// 14-bit INTIDs, the minimum for LPIs, which provide 8192 LPIs.
    Few,
    /// 16-bit INTIDs.
    #[default]
    Short,
    /// 17-bit INTIDs; all INTIDs below 2^16 are already in use.
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

/// Support for clearing `GICR_CTLR.EnableLPIs` (`GICR_CTLR.CES`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LpiDisabling {
    /// Software can clear the bit after setting it.
    #[default]
    Possible,
    /// The bit stays set once software has set it.
    Impossible,
}

/// How ITS commands identify a redistributor (`GITS_TYPER.PTA`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetAddresses {
    /// By processor number (PTA = 0).
    #[default]
    ProcessorNumbers,
    /// By physical address (PTA = 1).
    Physical,
}

/// The coherence of the controllers' table accesses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Snooping {
    /// The coherence that firmware describes. Where firmware denies coherence (`dma-noncoherent`),
    /// the registers still report it, so drivers must believe firmware.
    #[default]
    AsDescribed,
    /// No controller is coherent, and the registers say so, regardless of the description.
    DeniedByRegisters,
}
