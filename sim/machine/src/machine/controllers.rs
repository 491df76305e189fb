//! The MSI controllers that the machine implements.

use super::{ControllerChoice, Refusal};
use gic_firmware::{Controller, ControllerIndex, ControllerKind, Description};

/// Returns the usable controllers, in the order in which the description lists them.
pub(crate) fn usable(
    description: &Description,
) -> impl Iterator<Item = (ControllerIndex, &Controller)> {
    description
        .indexed_controllers()
        .filter(|(_, controller)| ControllerChoice::Auto.serves(controller))
}

/// Returns the usable controllers of a kind.
pub(crate) fn of_kind(
    description: &Description,
    kind: ControllerKind,
) -> impl Iterator<Item = (ControllerIndex, &Controller)> {
    usable(description).filter(move |(_, controller)| controller.kind == kind)
}

/// Returns the ITSes with their register addresses.
pub(crate) fn itses(
    description: &Description,
) -> impl Iterator<Item = (ControllerIndex, &Controller, u64)> {
    of_kind(description, ControllerKind::Its).filter_map(|(index, controller)| {
        let registers = controller.registers.as_ref()?;
        Some((index, controller, registers.base()))
    })
}

/// Returns the names of the participating controllers.
///
/// # Errors
/// Returns an error if the description has no such controller, or requires a combination that one
/// machine cannot have.
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
