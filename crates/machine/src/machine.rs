//! A machine, built and not yet switched on.

use gic_firmware::Description;
use std::num::NonZeroU16;

/// How to build a machine from its description.
#[derive(Clone, Debug, Default)]
pub struct BuildOptions {
    /// At most so many CPUs; `None` = as many as the description has.
    pub cpus: Option<NonZeroU16>,
    /// Which view of the distributor software gets.
    pub security: SecurityView,
    /// What ITS commands name as an interrupt's target.
    pub targets: TargetAddresses,
}

/// Which view of the distributor software gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum SecurityView {
    /// The only one there is (`GICD_CTLR.DS` = 1).
    #[default]
    Single,
    /// The Non-secure one beside a Secure one (DS = 0), as below EL3 firmware.
    NonSecure,
}

/// What ITS commands name as an interrupt's target (`GITS_TYPER.PTA`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TargetAddresses {
    /// The redistributor's processor number (PTA = 0).
    #[default]
    ProcessorNumbers,
    /// The redistributor's physical address (PTA = 1).
    Physical,
}

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
    #[error("the description has no ITS{}", also(.others))]
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
    Overlap(#[from] crate::bus::Overlap),
    /// An invented region found no room.
    #[error("there is no unused address space for {0}")]
    NoRoom(&'static str),
}

fn also(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!("; it has {}", others.join(", "))
}

/// A machine, built and not yet switched on.
#[derive(Debug)]
pub struct Machine {}

/// Builds the machine that `description` describes: its real controllers at their addresses, and at every PCI host
/// bridge and platform device that can ring an ITS somebody who does.
///
/// # Errors
/// There is nothing that could be delivered, or not on this kind of machine.
pub fn build(description: &Description, options: &BuildOptions) -> Result<Machine, Refusal> {
    let _ = (description, options);
    Err(Refusal::NoGic)
}
