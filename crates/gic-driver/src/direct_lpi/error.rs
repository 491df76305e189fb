//! Errors from setting up direct LPIs.

use crate::lpi::LpiError;
use msi_types::MsiError;

/// Reason why direct LPIs can't be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectLpiError {
    /// The GIC has no usable LPIs.
    #[error(transparent)]
    Lpi(#[from] LpiError),
    /// A redistributor lacks `GICR_SETLPIR` and the related registers (`GICR_TYPER.DirectLPI` = 0):
    /// firmware describes Direct LPIs on hardware that does not support them.
    #[error(
        "redistributor@{address:x}: firmware describes Direct LPIs, but the hardware does not \
         support them (GICR_TYPER.DirectLPI is 0)"
    )]
    NotDirect {
        /// Physical address of RD_base.
        address: u64,
    },
    /// No CPU has a redistributor.
    #[error("no CPU has a redistributor")]
    NoRedistributors,
    /// Memory for the LPI and CPU records could not be allocated.
    #[error("out of memory for the records of direct LPIs")]
    NoMemory,
    /// A redistributor failed.
    #[error(transparent)]
    Fault(MsiError),
}
