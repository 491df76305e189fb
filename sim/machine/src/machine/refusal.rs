//! The reasons for which a description makes no machine.

use super::ControllerChoice;
use doorbell_hardware::bus::Overlap;

/// The reason for which a description makes no machine on which messages are delivered.
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
    #[error("{0} is a GICv2, and the machine's model is of a GICv3: it can be inspected, not run")]
    GicV2(String),
    /// The GIC states no redistributor region.
    #[error("{0} states no redistributor region")]
    NoRedistributors(String),
    /// No enabled CPU.
    #[error("the description has no enabled CPU")]
    NoCpus,
    /// No enabled controller of a wanted kind.
    #[error("the description has no enabled {}{}", kinds(*.wanted), also(.others))]
    NoController {
        /// The chosen controllers.
        wanted: ControllerChoice,
        /// The other enabled MSI controllers, by name and kind.
        others: Vec<String>,
    },
    /// Devices are sent to redistributors that belong to an ITS.
    #[error(
        "{direct} is described with direct LPIs beside the ITS {its}: a GIC with an ITS does not \
         have them"
    )]
    DirectLpiBesideIts {
        /// The GIC.
        direct: String,
        /// The ITS.
        its: String,
    },
    /// Devices are sent to redistributors and to the distributor's message registers.
    #[error(
        "{direct} is described with direct LPIs beside the message-based SPIs of {mbi}: devices \
         could not choose"
    )]
    DirectLpiBesideMbi {
        /// The GIC.
        direct: String,
        /// The controller with the message registers.
        mbi: String,
    },
    /// Controllers, but nothing that refers to one.
    #[error("no device refers to {}", .controllers.join(" or "))]
    NothingRings {
        /// The controllers.
        controllers: Vec<String>,
    },
    /// Two things claim the same addresses.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// An invented region found no room.
    #[error("there is no unused address space for {0}")]
    NoRoom(&'static str),
    /// The host's end of a virtual bus cannot be built.
    #[error("the virtual bus cannot be built: {0}")]
    VirtualBus(String),
    /// No GIC is like the one that is described.
    #[error("the described GIC cannot be built: {0}")]
    Gic(#[from] vgic::ConfigError),
}

fn kinds(wanted: ControllerChoice) -> &'static str {
    match wanted {
        ControllerChoice::Auto => "ITS, nor direct LPIs, message-based SPIs or GICv2m frames",
        ControllerChoice::Its => "ITS",
        ControllerChoice::DirectLpi => "direct LPIs",
        ControllerChoice::Mbi => "message-based SPIs (mbi)",
        ControllerChoice::V2m => "GICv2m frame",
        ControllerChoice::HypervVpci => "virtual PCI bus of Hyper-V (hyperv-vpci)",
    }
}

fn also(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!("; what it has is {}", others.join(", "))
}
