//! Why there is no machine.

use crate::bus::Overlap;

/// Why a description makes no machine on which messages are delivered.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no GIC in it.
    #[error("the description has no GIC")]
    NoGic,
    /// The GIC is disabled.
    #[error("the description's GIC, {0}, is disabled")]
    GicDisabled(String),
    /// The GIC has no redistributors.
    #[error("{0} is a GICv2: it has no LPIs, and so no ITS")]
    GicV2(String),
    /// The GIC states no redistributor region.
    #[error("{0} states no redistributor region")]
    NoRedistributors(String),
    /// No enabled CPU.
    #[error("the description has no enabled CPU")]
    NoCpus,
    /// No enabled ITS.
    #[error("the description has no enabled ITS{}", also(.others))]
    NoIts {
        /// The other enabled MSI controllers, by name and kind.
        others: Vec<String>,
    },
    /// ITSes, but nothing that refers to one.
    #[error("no device refers to {}", .controllers.join(" or "))]
    NothingRings {
        /// The ITSes.
        controllers: Vec<String>,
    },
    /// Two things claim the same addresses.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// An invented region found no room.
    #[error("there is no unused address space for {0}")]
    NoRoom(&'static str),
    /// No GIC is like the one that is described.
    #[error("the described GIC cannot be built: {0}")]
    Gic(#[from] vgic::ConfigError),
}

fn also(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!("; what it has is {}", others.join(", "))
}
