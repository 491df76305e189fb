//! Errors of LPIs and their tables.

use crate::{Block, BlockError};
use core::fmt;
use gic_arch::Lpi;

/// Reasons to refuse an operation on LPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LpiError {
    /// The hardware has none.
    #[error("{0} has no LPIs")]
    NotSupported(Block),
    /// LPIs are Non-secure interrupts.
    #[error("LPIs belong to Non-secure software")]
    SecureView,
    /// LPIs need 14 INTID bits or more.
    #[error("{bits} INTID bits leave no LPIs: those begin with 14")]
    TooFewIdBits {
        /// INTID bits of the configuration, the hardware or an adopted table.
        bits: u8,
    },
    /// The platform gave no memory.
    #[error("no memory for the {table}: {bytes} bytes")]
    NoMemory {
        /// The table.
        table: &'static str,
        /// Its size.
        bytes: u64,
    },
    /// The platform placed memory where the registers or the redistributors cannot reach it.
    #[error(
        "the platform placed the {table} at {address:#x}: misaligned, too small or out of reach"
    )]
    Misplaced {
        /// The table.
        table: &'static str,
        /// Its physical address.
        address: u64,
    },
    /// LPIs were found enabled, cannot be disabled, and the tables in use cannot be taken over.
    #[error("{block}: LPIs are already enabled and stay so: {reason}")]
    AlreadyEnabled {
        /// The redistributor.
        block: Block,
        /// The reason that its tables cannot be adopted.
        reason: AdoptionRefused,
    },
    /// Other messages make these LPIs pending already.
    #[error("the LPIs are taken by {by}")]
    Claimed {
        /// The other messages.
        by: LpiMessages,
    },
    /// The caller names an LPI that the tables do not cover.
    #[error("{0} is beyond the LPI tables")]
    NoSuchLpi(Lpi),
    /// The allocator.
    #[error("LPIs: {0}")]
    Blocks(#[from] BlockError),
}

/// Reasons that tables in use cannot be adopted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum AdoptionRefused {
    /// The platform does not know the configuration table as reserved memory.
    ConfigNotReserved {
        /// Its physical address.
        address: u64,
    },
    /// The platform does not know the pending table as reserved memory.
    PendingNotReserved {
        /// Its physical address.
        address: u64,
    },
    /// The redistributor uses another configuration table than the others.
    OtherConfigTable {
        /// The table it uses.
        found: u64,
        /// The table of the others.
        expected: u64,
    },
    /// LPIs are allocated that may be pending in the redistributor's table for a previous kernel.
    /// They cannot be cleared there any more.
    LpisInUse,
    /// The redistributor uses another pending table than the one it was given.
    OtherPendingTable {
        /// The table it uses.
        found: u64,
        /// The table it was given.
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
                    "their configuration table is at {found:#x}, that of the others at \
                     {expected:#x}"
                )
            }
            Self::LpisInUse => f.write_str(
                "what is pending there for a previous kernel cannot be cleared while LPIs are in \
                 use; turn on all CPUs before devices allocate LPIs, or reboot instead of kexec",
            ),
            Self::OtherPendingTable { found, expected } => {
                write!(
                    f,
                    "their pending table is at {found:#x}, not at {expected:#x} where it was put"
                )
            }
        }
    }
}

/// To which register devices send the messages that make LPIs pending: one of them for all LPIs of
/// a GIC.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum LpiMessages {
    /// `GITS_TRANSLATER`, of any number of ITSes.
    Translated,
    /// `GICR_SETLPIR`, which is IMPLEMENTATION DEFINED where there is an ITS (IHI 0069,
    /// `GICR_SETLPIR`).
    Direct,
}

impl fmt::Display for LpiMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Translated => "an ITS: GICR_SETLPIR is IMPLEMENTATION DEFINED beside one",
            Self::Direct => "direct LPIs (GICR_SETLPIR)",
        })
    }
}
