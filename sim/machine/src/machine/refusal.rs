//! The reasons why a machine cannot be built from a description.

use super::ControllerChoice;
use doorbell_hardware::bus::Overlap;

/// The reason why a description cannot be turned into a machine that delivers messages.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The description has no GIC.
    #[error("the description has no GIC")]
    NoGic,
    /// The description's GIC is disabled.
    #[error("the description's GIC, {0}, is disabled")]
    GicDisabled(String),
    /// The described GIC is a GICv2 and has no redistributors.
    #[error("{0} is a GICv2, and the machine's model is of a GICv3: it can be inspected, not run")]
    GicV2(String),
    /// The description has no redistributor region.
    #[error("{0} states no redistributor region")]
    NoRedistributors(String),
    /// The description has no enabled CPUs.
    #[error("the description has no enabled CPU")]
    NoCpus,
    /// No selected controller is enabled.
    #[error("the description has no enabled {}{}", kinds(*.wanted), also(.others))]
    NoController {
        /// The selected controllers.
        wanted: ControllerChoice,
        /// The other enabled MSI controllers, by name and kind.
        others: Vec<String>,
    },
    /// Devices are routed to the redistributors of a GIC that also has an ITS.
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
    /// Devices are routed both to redistributors and to the distributor's message registers.
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
    /// No device is routed to any of the controllers.
    #[error("no device refers to {}", .controllers.join(" or "))]
    NothingRings {
        /// The controllers.
        controllers: Vec<String>,
    },
    /// Two components claim the same addresses.
    #[error(transparent)]
    Overlap(#[from] Overlap),
    /// No free address range is left for a region that firmware does not place.
    #[error("the address space has no unused range for {0}")]
    NoRoom(&'static str),
    /// The virtual bus's host end cannot be created.
    #[error("the virtual bus cannot be built: {0}")]
    VirtualBus(String),
    /// The model cannot implement the GIC that firmware describes.
    #[error("the described GIC cannot be built: {0}")]
    Gic(#[from] vgic::ConfigError),
}

fn kinds(wanted: ControllerChoice) -> &'static str {
    match wanted {
        ControllerChoice::Auto => {
            "ITS, nor direct LPIs, message-based SPIs, GICv2m frames or controllers in bridges"
        }
        ControllerChoice::Its => "ITS",
        ControllerChoice::DirectLpi => "direct LPIs",
        ControllerChoice::Mbi => "message-based SPIs (mbi)",
        ControllerChoice::V2m => "GICv2m frame",
        ControllerChoice::BridgeMsi => "controller inside a host bridge (bridge-msi)",
        ControllerChoice::HypervVpci => "virtual PCI bus of Hyper-V (hyperv-vpci)",
    }
}

fn also(others: &[String]) -> String {
    if others.is_empty() {
        return String::new();
    }
    format!("; it has {}", others.join(", "))
}
