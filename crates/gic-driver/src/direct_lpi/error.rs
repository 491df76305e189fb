//! Errors of taking direct LPIs into use.

use crate::lpi::LpiError;
use msi_types::MsiError;

/// Reasons to refuse direct LPIs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectLpiError {
    /// There are no LPIs at all.
    #[error(transparent)]
    Lpi(#[from] LpiError),
    /// A redistributor has no `GICR_SETLPIR` and its kin (`GICR_TYPER.DirectLPI` = 0): firmware
    /// describes Direct LPIs on hardware that has none.
    #[error(
        "redistributor@{address:x} has no Direct LPIs (GICR_TYPER.DirectLPI is 0), which firmware \
         describes"
    )]
    NotDirect {
        /// Its RD_base.
        address: u64,
    },
    /// No CPU has a redistributor.
    #[error("no CPU has a redistributor")]
    NoRedistributors,
    /// There is no memory for what is known of each LPI and CPU.
    #[error("no memory for direct LPIs")]
    NoMemory,
    /// A redistributor failed.
    #[error(transparent)]
    Fault(MsiError),
}
