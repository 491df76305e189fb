//! Each requester's routes, with the statements in firmware that define them.

use crate::graph::{Column, Graph};
use crate::inspect::Listing;
use crate::lint::Excerpts;
use crate::requesters::{self, Requester};
use gic_firmware::{Controller, Description, Fact, Origin, RouteSpan, Via};
use std::collections::BTreeSet;

/// Maximum number of statements of one kind about a route.
const MAX_STATEMENTS: usize = 16;

/// A requester's routes.
#[derive(Debug)]
pub(crate) struct RouteCard {
    /// Index of the requester's box in the picture.
    pub(super) node: usize,
    pub(super) id: String,
    pub(super) enabled: bool,
    /// Identifiers of the boxes along its routes, separated by blanks.
    pub(super) way: String,
    pub(super) routes: Vec<RouteView>,
}

/// The route for one span of requester IDs.
#[derive(Debug)]
pub(super) struct RouteView {
    pub(super) from: String,
    pub(super) to: String,
    pub(super) controller: String,
    pub(super) statements: Vec<Statement>,
}

/// One step of a route, with the source text of the statement that defines it.
#[derive(Debug)]
pub(super) struct Statement {
    pub(super) says: String,
    pub(super) origin: Origin,
    /// The property in source form, or the first bytes of the structure.
    pub(super) text: Option<String>,
}

/// Creates a card for each requester.
pub(crate) fn cards(description: &Description, graph: &Graph) -> Vec<RouteCard> {
    let root = graph.nodes.iter().position(|node| node.column == Column::Gic);
    let mut listing = Listing::new();
    let mut cards = Vec::new();
    for requester in requesters::all(description) {
        if listing.admits(requester.id.as_str().len()) {
            cards.extend(card(description, graph, &requester, root, &mut listing));
        }
    }
    cards
}

/// Fills in each statement's source text.
pub(super) fn quote(cards: &mut [RouteCard], excerpts: &Excerpts) {
    let routes = cards.iter_mut().flat_map(|card| &mut card.routes);
    for statement in routes.flat_map(|route| &mut route.statements) {
        let found = excerpts.text(&statement.origin);
        statement.text =
            found.and_then(|(text, range)| text.get(range)).map(|text| text.trim().to_owned());
    }
}

/// Returns the locations whose text [`quote`] needs.
pub(super) fn origins(cards: &[RouteCard]) -> impl Iterator<Item = &Origin> {
    let routes = cards.iter().flat_map(|card| &card.routes);
    routes.flat_map(|route| &route.statements).map(|statement| &statement.origin)
}

fn card(
    description: &Description,
    graph: &Graph,
    requester: &Requester<'_>,
    root: Option<usize>,
    listing: &mut Listing,
) -> Option<RouteCard> {
    let node = graph.place(Column::Requester, requester.id)?;
    let mut way: BTreeSet<usize> = BTreeSet::from([node]);
    let mut routes = Vec::new();
    for span in &requester.spans {
        let Some(controller) = description.controller(span.controller) else { continue };
        if !listing.admits(controller.id.as_str().len()) {
            break;
        }
        way.extend(graph.controllers.get(span.controller.get()));
        way.extend(root);
        let secondary = controller.secondary_gic.as_ref();
        way.extend(secondary.and_then(|gic| graph.place(Column::SecondaryGic, gic)));
        for iommu in requester.iommus(span).iter().take(MAX_STATEMENTS) {
            let iommu = description.iommu(iommu.value);
            way.extend(iommu.and_then(|iommu| graph.place(Column::Iommu, &iommu.id)));
        }
        routes.push(view(description, requester, span, controller));
    }
    Some(RouteCard {
        node,
        id: requester.id.to_string(),
        enabled: requester.status.is_enabled(),
        way: way.iter().map(|node| format!("n{node}")).collect::<Vec<_>>().join(" "),
        routes,
    })
}

fn view(
    description: &Description,
    requester: &Requester<'_>,
    span: &RouteSpan,
    controller: &Controller,
) -> RouteView {
    let (first, length) = (span.rid_base.get(), span.length);
    let from = match (first, length) {
        (0, 1) => "the device itself".to_owned(),
        _ => format!("requester {}", numbers(first, length)),
    };
    let to = if controller.kind.needs_device_id() {
        format!("DeviceID {}", numbers(span.device_id_base.get(), length))
    } else {
        format!("no DeviceID ({})", controller.kind)
    };
    let mut statements = vec![];
    let status = &requester.status;
    let mut say = |says: String, origin: &Origin| {
        if origin.place().is_some() {
            statements.push(Statement { says, origin: origin.clone(), text: None });
        }
    };
    if !status.is_enabled() {
        say("the device is disabled".to_owned(), &status.origin);
    }
    if let Some(origin) = route_origin(requester, span.via) {
        say(format!("the route, by {}", span.via), origin);
    }
    if let (Some(mask), Via::Map(_)) = (&requester.msi.mask, span.via) {
        say(format!("requester IDs are masked with {:#x}", mask.value), &mask.origin);
    }
    for passed in requester.iommus(span).iter().take(MAX_STATEMENTS) {
        let Some(iommu) = description.iommu(passed.value) else { continue };
        say(format!("messages pass {}", iommu.id), &passed.origin);
        if !iommu.status.is_enabled() {
            say("the IOMMU is disabled".to_owned(), &iommu.status.origin);
        }
    }
    destination(controller, &mut say);
    RouteView { from, to, controller: controller.id.to_string(), statements }
}

fn destination(controller: &Controller, say: &mut impl FnMut(String, &Origin)) {
    if let Some(window) = &controller.pre_its {
        say(format!("devices write to a window at {:#x}", window.base()), &window.origin);
    }
    if let Some(registers) = &controller.registers {
        say(format!("the controller's registers at {:#x}", registers.base()), &registers.origin);
    }
    for range in controller.ranges.iter().take(MAX_STATEMENTS) {
        let says = format!("INTIDs {}", numbers(range.first().get(), range.count()));
        say(says, &range.origin);
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

fn route_origin<'r>(requester: &'r Requester<'_>, via: Via) -> Option<&'r Origin> {
    let parent = |index: usize| requester.msi.parents.get(index).map(origin_of);
    match via {
        Via::Map(index) => requester.msi.map.as_ref()?.get(index).map(origin_of),
        Via::Parent(index) | Via::ParentAfterMap(index) => parent(index),
        _ => None,
    }
}

const fn origin_of<T>(fact: &Fact<T>) -> &Origin {
    &fact.origin
}

/// Formats a number, or the first and last number in a range.
fn numbers(first: u32, length: u32) -> String {
    match length {
        0 => "none".to_owned(),
        1 => format!("{first:#x}"),
        length => format!("{first:#x} to {:#x}", u64::from(first) + u64::from(length) - 1),
    }
}
