//! Errors from setting up or using LPIs and their tables.

use crate::{Block, BlockError};
use core::fmt;
use gic_arch::Lpi;

/// Error from LPIs or their tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LpiError {
    /// The hardware does not support LPIs.
    #[error("{0} has no LPIs")]
    NotSupported(Block),
    /// The driver runs in the Secure view, but LPIs are Non-secure interrupts.
    #[error("LPIs belong to Non-secure software")]
    SecureView,
    /// LPIs need at least 14 INTID bits.
    #[error("{bits} INTID bits leave no LPIs: at least 14 are needed")]
    TooFewIdBits {
        /// INTID bits that the configuration, the hardware and any adopted table allow.
        bits: u8,
    },
    /// The platform could not allocate a table.
    #[error("out of memory for the {table}: {bytes} bytes")]
    NoMemory {
        /// The table.
        table: &'static str,
        /// The size of the table.
        bytes: u64,
    },
    /// The platform placed memory where the base registers can't encode it or the redistributors
    /// can't reach it.
    #[error(
        "the platform placed the {table} at {address:#x}: misaligned, too small or out of reach"
    )]
    Misplaced {
        /// The table.
        table: &'static str,
        /// The table's physical address.
        address: u64,
    },
    /// LPIs are already enabled and cannot be disabled, and the tables in use can't be adopted.
    #[error("{block}: LPIs are already enabled and cannot be disabled: {reason}")]
    AlreadyEnabled {
        /// The redistributor.
        block: Block,
        /// Reason why the tables in use can't be adopted.
        reason: AdoptionRefused,
    },
    /// Another message mechanism already uses this GIC's LPIs.
    #[error("the LPIs are already used by {by}")]
    Claimed {
        /// The other mechanism.
        by: LpiMessages,
    },
    /// The tables do not cover this LPI.
    #[error("{0} is beyond the end of the LPI tables")]
    NoSuchLpi(Lpi),
    /// Error from the LPI allocator.
    #[error("LPIs: {0}")]
    Blocks(#[from] BlockError),
}

/// Reason why tables in use can't be adopted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum AdoptionRefused {
    /// The configuration table is outside memory reserved by the platform.
    ConfigNotReserved {
        /// The table's physical address.
        address: u64,
    },
    /// The pending table is outside memory reserved by the platform.
    PendingNotReserved {
        /// The table's physical address.
        address: u64,
    },
    /// The redistributor uses a different configuration table than the others.
    OtherConfigTable {
        /// Address of the table that the redistributor uses.
        found: u64,
        /// Address of the table that the other redistributors use.
        expected: u64,
    },
    /// LPIs have already been allocated. Some of these LPIs may be pending in the redistributor's
    /// table for a previous kernel, and can no longer be cleared there.
    LpisInUse,
    /// The redistributor does not use the pending table that the driver assigned to it.
    OtherPendingTable {
        /// Address of the table that the redistributor uses.
        found: u64,
        /// Address of the table that the driver assigned.
        expected: u64,
    },
}

impl fmt::Display for AdoptionRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigNotReserved { address } => {
                write!(f, "their configuration table at {address:#x} is not reserved memory")
            }
            Self::PendingNotReserved { address } => {
                write!(f, "their pending table at {address:#x} is not reserved memory")
            }
            Self::OtherConfigTable { found, expected } => {
                write!(
                    f,
                    "their configuration table is at {found:#x}, but that of other redistributors \
                     is at {expected:#x}"
                )
            }
            Self::LpisInUse => f.write_str(
                "LPIs that are pending for a previous kernel cannot be cleared while LPIs are in \
                 use; turn on all CPUs before devices allocate LPIs, or reboot without kexec",
            ),
            Self::OtherPendingTable { found, expected } => {
                write!(
                    f,
                    "their pending table is at {found:#x}, not at {expected:#x} where the driver \
                     placed it"
                )
            }
        }
    }
}

/// Mechanism by which devices signal LPIs. All LPIs on a GIC use the same mechanism.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LpiMessages {
    /// Messages to `GITS_TRANSLATER`, on any number of ITSes.
    Translated,
    /// Messages to `GICR_SETLPIR`, which is IMPLEMENTATION DEFINED if the GIC has an ITS (IHI 0069,
    /// `GICR_SETLPIR`).
    Direct,
}

impl fmt::Display for LpiMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Translated => "an ITS (with an ITS, GICR_SETLPIR is IMPLEMENTATION DEFINED)",
            Self::Direct => "direct LPIs (GICR_SETLPIR)",
        })
    }
}
