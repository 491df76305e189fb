//! Selects the controllers (and with them the devices) that take part in a run.

use gic_firmware::{Controller, ControllerKind, Description, NoRoute, Route};

/// The controller kind that this crate uses for a Hyper-V virtual PCI bus.
pub(super) const HYPERV_VPCI: &str = "hyperv-vpci";

/// Returns `true` if the controller is a virtual bus.
pub(crate) fn is_virtual_bus(kind: &ControllerKind) -> bool {
    matches!(kind, ControllerKind::Other(name) if name == HYPERV_VPCI)
}

/// The participating controllers and their devices. Firmware alone assigns devices to controllers,
/// so a selection can only omit devices whose controllers it excludes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum ControllerChoice {
    /// All described controllers.
    #[default]
    Auto,
    /// Devices that firmware assigns to an ITS.
    Its,
    /// Devices that firmware assigns to the redistributors.
    DirectLpi,
    /// Devices that firmware assigns to the distributor's message registers.
    Mbi,
    /// Devices that firmware assigns to a GICv2m frame.
    V2m,
    /// Devices behind host bridges that contain an MSI controller.
    BridgeMsi,
    /// Devices on a Hyper-V virtual PCI bus.
    HypervVpci,
}

impl ControllerChoice {
    /// Returns `true` if controllers of this kind take part.
    pub fn admits(self, kind: &ControllerKind) -> bool {
        match kind {
            ControllerKind::Its => matches!(self, Self::Auto | Self::Its),
            ControllerKind::DirectLpi => matches!(self, Self::Auto | Self::DirectLpi),
            ControllerKind::Mbi => matches!(self, Self::Auto | Self::Mbi),
            ControllerKind::V2m => matches!(self, Self::Auto | Self::V2m),
            kind if kind.is_in_bridge() => matches!(self, Self::Auto | Self::BridgeMsi),
            _ => is_virtual_bus(kind) && matches!(self, Self::Auto | Self::HypervVpci),
        }
    }

    /// Returns the choice's name on the command line. For a single kind, this is
    /// [`ControllerKind::as_str`]; controllers inside bridges have several kinds.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Its => "its",
            Self::DirectLpi => "direct-lpi",
            Self::Mbi => "mbi",
            Self::V2m => "v2m",
            Self::BridgeMsi => "bridge-msi",
            Self::HypervVpci => HYPERV_VPCI,
        }
    }

    /// Returns `true` if the controller is enabled and takes part, and firmware states its register
    /// address. Redistributors that receive direct LPIs have no separate registers, so no address
    /// is needed for them.
    pub(crate) fn serves(self, controller: &Controller) -> bool {
        let placed = controller.registers.is_some() || controller.kind == ControllerKind::DirectLpi;
        let is_of_root = controller.secondary_gic.is_none()
            && (controller.is_driven() || is_virtual_bus(&controller.kind));
        controller.status.is_enabled() && is_of_root && placed && self.admits(&controller.kind)
    }

    /// Returns the route and its controller if that controller takes part.
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
