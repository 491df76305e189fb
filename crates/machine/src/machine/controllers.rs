//! The description's MSI controllers that the machine has, and the choice among them.

use super::Refusal;
use gic_firmware::{Controller, ControllerIndex, ControllerKind, Description, NoRoute, Route};

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
}

impl ControllerChoice {
    /// Does it take part?
    pub const fn admits(self, kind: &ControllerKind) -> bool {
        match kind {
            ControllerKind::Its => matches!(self, Self::Auto | Self::Its),
            ControllerKind::DirectLpi => matches!(self, Self::Auto | Self::DirectLpi),
            ControllerKind::Mbi => matches!(self, Self::Auto | Self::Mbi),
            ControllerKind::V2m => matches!(self, Self::Auto | Self::V2m),
            ControllerKind::Other(_) => false,
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
        }
    }

    /// Can a device of this machine be served by the controller, and does it take part?
    pub(crate) fn serves(self, controller: &Controller) -> bool {
        self.admits(&controller.kind) && is_usable(controller)
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

/// It is enabled, of a kind that the machine has, and firmware places its registers. Direct LPIs
/// have none of their own.
fn is_usable(controller: &Controller) -> bool {
    let placed = controller.registers.is_some() || controller.kind == ControllerKind::DirectLpi;
    controller.status.is_enabled() && placed && ControllerChoice::Auto.admits(&controller.kind)
}

/// The usable controllers, in the description's order.
pub(crate) fn usable(
    description: &Description,
) -> impl Iterator<Item = (ControllerIndex, &Controller)> {
    description.indexed_controllers().filter(|(_, controller)| is_usable(controller))
}

/// The usable controllers of a kind.
pub(crate) fn of_kind(
    description: &Description,
    kind: ControllerKind,
) -> impl Iterator<Item = (ControllerIndex, &Controller)> {
    usable(description).filter(move |(_, controller)| controller.kind == kind)
}

/// The ITSes, and where their registers are.
pub(crate) fn itses(
    description: &Description,
) -> impl Iterator<Item = (ControllerIndex, &Controller, u64)> {
    of_kind(description, ControllerKind::Its).filter_map(|(index, controller)| {
        let registers = controller.registers.as_ref()?;
        Some((index, controller, registers.base()))
    })
}

/// Names the controllers that take part.
///
/// # Errors
/// There is none, or they cannot be on one machine.
pub(super) fn check(
    description: &Description,
    choice: ControllerChoice,
) -> Result<Vec<String>, Refusal> {
    let first =
        |kind| of_kind(description, kind).next().map(|(_, controller)| controller.id.to_string());
    if let Some(direct) = first(ControllerKind::DirectLpi) {
        if let Some(its) = first(ControllerKind::Its) {
            return Err(Refusal::DirectLpiBesideIts { direct, its });
        }
        if let Some(mbi) = first(ControllerKind::Mbi) {
            return Err(Refusal::DirectLpiBesideMbi { direct, mbi });
        }
    }
    let names: Vec<_> = usable(description)
        .filter(|(_, controller)| choice.serves(controller))
        .map(|(_, controller)| controller.id.to_string())
        .collect();
    if names.is_empty() {
        return Err(Refusal::NoController { wanted: choice, others: enabled(description) });
    }
    Ok(names)
}

fn enabled(description: &Description) -> Vec<String> {
    let enabled =
        description.controllers.iter().filter(|controller| controller.status.is_enabled());
    enabled.map(|controller| format!("{} ({})", controller.id, controller.kind)).collect()
}
