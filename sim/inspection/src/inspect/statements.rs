//! Firmware's statements about a route.

use crate::requesters::Requester;
use gic_firmware::{Controller, Description, Fact, IommuIndex, MsiRouting, Origin, RouteSpan, Via};

/// Maximum number of statements of one kind about a route.
const MAX_STATEMENTS: usize = 16;

/// A statement about a step of a route.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The sentence.
    pub says: String,
    /// Property, or field of a table.
    pub origin: Origin,
}

/// Returns the property or table entry that defines a route, as text for the output.
pub fn statement(msi: &MsiRouting, via: Via) -> String {
    let stated = if matches!(via, Via::ParentAfterMap(_)) { None } else { origin(msi, via) };
    stated.map_or_else(|| via.to_string(), |origin| origin.item().to_owned())
}

/// Returns the statements about a route, from the requester to the controller. `iommus` has
/// the statement that refers to each IOMMU.
pub(super) fn all<'o>(
    description: &Description,
    requester: &Requester<'_>,
    span: &RouteSpan,
    iommus: impl Iterator<Item = (IommuIndex, &'o Origin)>,
) -> Vec<Statement> {
    let mut statements = Vec::new();
    let status = &requester.status;
    let mut say = |says: String, origin: &Origin| {
        if origin.place().is_some() {
            statements.push(Statement { says, origin: origin.clone() });
        }
    };
    if !status.is_enabled() {
        say("the device is disabled".to_owned(), &status.origin);
    }
    if let Some(origin) = origin(requester.msi, span.via) {
        say(format!("the route, by {}", span.via), origin);
    }
    if let (Some(mask), Via::Map(_)) = (&requester.msi.mask, span.via) {
        say(format!("requester IDs are masked with {:#x}", mask.value), &mask.origin);
    }
    for (index, origin) in iommus.take(MAX_STATEMENTS) {
        let Some(iommu) = description.iommu(index) else { continue };
        say(format!("messages pass {}", iommu.id), origin);
        if !iommu.status.is_enabled() {
            say("the IOMMU is disabled".to_owned(), &iommu.status.origin);
        }
    }
    if let Some(controller) = description.controller(span.controller) {
        about_controller(controller, &mut say);
    }
    statements
}

fn about_controller(controller: &Controller, say: &mut impl FnMut(String, &Origin)) {
    if let Some(window) = &controller.pre_its {
        say(format!("devices write to a window at {:#x}", window.base()), &window.origin);
    }
    if let Some(registers) = &controller.registers {
        say(format!("the controller's registers at {:#x}", registers.base()), &registers.origin);
    }
    for range in controller.ranges.iter().take(MAX_STATEMENTS) {
        say(format!("INTIDs {}+{}", range.first().get(), range.count()), &range.origin);
    }
    if let Some(more) = controller.ranges.len().checked_sub(MAX_STATEMENTS + 1)
        && let Some(range) = controller.ranges.last()
    {
        say(format!("{} more ranges of INTIDs", more + 1), &range.origin);
    }
    for line in &controller.lines {
        say(format!("it raises INTID {}", line.intid.get()), &line.origin);
    }
    if !controller.status.is_enabled() {
        say("the controller is disabled".to_owned(), &controller.status.origin);
    }
}

/// Returns where firmware states a route.
fn origin(msi: &MsiRouting, via: Via) -> Option<&Origin> {
    match via {
        Via::Map(index) => msi.map.as_ref()?.get(index).map(origin_of),
        Via::Parent(index) | Via::ParentAfterMap(index) => msi.parents.get(index).map(origin_of),
        _ => None,
    }
}

const fn origin_of<T>(fact: &Fact<T>) -> &Origin {
    &fact.origin
}
