//! The choice of controllers whose devices take part.

use gic_firmware::{Controller, ControllerKind, Description, NoRoute, Route};

/// The kind of a virtual PCI bus of Hyper-V's, as a controller of the machine.
pub(super) const HYPERV_VPCI: &str = "hyperv-vpci";

/// Is this controller a virtual bus?
pub(crate) fn is_virtual_bus(kind: &ControllerKind) -> bool {
    matches!(kind, ControllerKind::Other(name) if name == HYPERV_VPCI)
}

/// The choice of controllers whose devices take part. Firmware alone assigns devices to
/// controllers; a choice leaves out the devices of the others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ControllerChoice {
    /// All that the description has.
    #[default]
    Auto,
    /// Those that firmware sends to an ITS.
    Its,
    /// Those that firmware sends to the redistributors.
    DirectLpi,
    /// Those that firmware sends to the distributor's message registers.
    Mbi,
    /// Those that firmware sends to a GICv2m frame.
    V2m,
    /// Those on a virtual PCI bus of Hyper-V's.
    HypervVpci,
}

impl ControllerChoice {
    /// Does it take part?
    pub fn admits(self, kind: &ControllerKind) -> bool {
        match kind {
            ControllerKind::Its => matches!(self, Self::Auto | Self::Its),
            ControllerKind::DirectLpi => matches!(self, Self::Auto | Self::DirectLpi),
            ControllerKind::Mbi => matches!(self, Self::Auto | Self::Mbi),
            ControllerKind::V2m => matches!(self, Self::Auto | Self::V2m),
            ControllerKind::Other(_) => {
                is_virtual_bus(kind) && matches!(self, Self::Auto | Self::HypervVpci)
            }
        }
    }

    /// Its name on a command line; of the chosen kind, [`ControllerKind::as_str`].
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Its => "its",
            Self::DirectLpi => "direct-lpi",
            Self::Mbi => "mbi",
            Self::V2m => "v2m",
            Self::HypervVpci => HYPERV_VPCI,
        }
    }

    /// The controller is enabled and takes part, and firmware places its registers. Direct LPIs
    /// have none of their own.
    pub(crate) fn serves(self, controller: &Controller) -> bool {
        let placed = controller.registers.is_some() || controller.kind == ControllerKind::DirectLpi;
        let is_of_root = controller.secondary_gic.is_none();
        controller.status.is_enabled() && is_of_root && placed && self.admits(&controller.kind)
    }

    /// The controller of a route, if it serves.
    pub(super) fn controller(
        self,
        description: &Description,
        route: Result<Route, NoRoute>,
    ) -> Option<(Route, &Controller)> {
        let route = route.ok()?;
        let controller = description.controller(route.controller)?;
        self.serves(controller).then_some((route, controller))
    }
}
