//! The tables of an inspection, which the command prints and the page shows.

use super::report::{ControllerRow, DeviceRow, Inspection, RangeRow, RouteRow, StreamRow};
use std::collections::BTreeSet;

/// Maximum number of IOMMUs in a route's row.
const MAX_NAMES: usize = 8;
/// Maximum number of a controller's ranges in its row.
const MAX_RANGES: usize = 16;

/// A table of text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rows {
    /// Names of the columns.
    pub header: Vec<&'static str>,
    /// Columns of identifiers, which may be shortened.
    pub identifiers: &'static [usize],
    /// The cells of each row. The first cell is the identifier of an object of the description.
    pub rows: Vec<Vec<String>>,
}

impl Rows {
    fn new(
        header: &[&'static str],
        identifiers: &'static [usize],
        rows: impl IntoIterator<Item = Vec<String>>,
    ) -> Self {
        Self { header: header.to_vec(), identifiers, rows: rows.into_iter().collect() }
    }

    /// Returns a row's cells, each with the name of its column.
    pub fn cells<'r>(&'r self, row: &'r [String]) -> impl Iterator<Item = (&'r str, &'r String)> {
        self.header.iter().copied().zip(row)
    }

    /// Returns the table without a column.
    #[must_use]
    pub fn without(mut self, column: &str) -> Self {
        if let Some(at) = self.header.iter().position(|name| *name == column) {
            self.header.remove(at);
            self.rows.iter_mut().for_each(|row| drop(row.remove(at)));
        }
        self
    }
}

impl Inspection {
    /// Lists the secondary GICs, each with the interrupt that it raises at another controller.
    pub fn secondary_gic_rows(&self) -> Rows {
        let header = ["secondary GIC", "version", "enabled", "distributor", "INTID", "at"];
        let rows = self.secondary_gics.iter().map(|row| {
            let (gic, parent) = (&row.gic, row.parent.as_ref());
            let of_gic = |intid: u32| intid.to_string();
            let intid =
                parent.map(|parent| parent.intid.map_or_else(|| "not a GIC's".to_owned(), of_gic));
            vec![
                gic.id.clone(),
                format!("GICv{}", gic.version),
                yes_no(row.enabled).to_owned(),
                format!("{:#x}", gic.distributor),
                intid.unwrap_or_default(),
                parent.map_or("none", |parent| &parent.controller).to_owned(),
            ]
        });
        Rows::new(&header, &[0, 5], rows)
    }

    /// Lists the controllers.
    pub fn controller_rows(&self) -> Rows {
        let header =
            ["controller", "kind", "enabled", "driven", "isolates", "doorbell", "interrupts"];
        let rows = self.controllers.iter().map(|controller| {
            vec![
                controller.id.clone(),
                controller.kind.clone(),
                yes_no(controller.enabled).to_owned(),
                yes_no(controller.driven).to_owned(),
                yes_no(controller.isolates).to_owned(),
                addresses(&controller.doorbells),
                controller.interrupts(),
            ]
        });
        Rows::new(&header, &[0, 1], rows)
    }

    /// Lists the available capacities, followed in parentheses by what devices need.
    pub fn capacity_rows(&self) -> Rows {
        let header = ["room at", "interrupts", "DeviceID bits", "EventID bits"];
        let rows = self
            .capacity
            .iter()
            .map(|row| vec![row.controller.clone(), row.room(), row.device_ids(), row.event_ids()]);
        Rows::new(&header, &[0], rows)
    }

    /// Lists the requesters, with one row per route. The column for IOMMUs is omitted if no route
    /// passes one.
    pub fn device_rows(&self) -> Rows {
        let header = [
            "device",
            "kind",
            "enabled",
            "requesters",
            "DeviceIDs",
            "controller",
            "by",
            "through",
            "isolation",
        ];
        let rows = Rows::new(&header, &[0, 1, 5, 6, 7], self.devices.iter().flat_map(routes));
        let passes_iommu =
            |device: &DeviceRow| device.routes.iter().any(|route| !route.iommus.is_empty());
        if self.devices.iter().any(passes_iommu) { rows } else { rows.without("through") }
    }

    /// Lists which requesters pass through which IOMMU, without duplicates.
    pub fn stream_rows(&self) -> Rows {
        let mut shown = BTreeSet::new();
        let rows = self.devices.iter().flat_map(|device| {
            let routed = device.routes.iter().flat_map(|route| &route.streams);
            routed.chain(&device.streams).map(|stream| stream_cells(&device.id, stream))
        });
        let rows = rows.filter(|cells| shown.insert(cells.clone()));
        Rows::new(&["device", "requesters", "StreamIDs", "IOMMU", "enabled"], &[0, 3], rows)
    }
}

impl RouteRow {
    /// Names the requesters of nodes that have several, and the first DeviceID if the controller
    /// uses DeviceIDs.
    pub(crate) fn ids(&self) -> String {
        let requesters = match (self.rid_base, self.length) {
            (0, 1) => String::new(),
            (first, length) => format!("{} → ", span(first, length)),
        };
        if self.kind.needs_device_id() {
            return format!("{requesters}DeviceID {:#x}", self.device_id_base);
        }
        format!("{requesters}{}", self.kind)
    }
}

/// Returns a row for each of a requester's routes, or one if it has none.
fn routes(device: &DeviceRow) -> Vec<Vec<String>> {
    let row = |route: [String; 5]| {
        let own = [device.id.clone(), device.kind.clone(), yes_no(device.enabled).to_owned()];
        own.into_iter().chain(route).chain([device.isolation.clone()]).collect()
    };
    if device.routes.is_empty() {
        return vec![row(["", "", "none", "", ""].map(str::to_owned))];
    }
    let routes = device.routes.iter().map(|route| {
        row([
            span(route.rid_base, route.length),
            span(route.device_id_base, route.length),
            route.controller.clone(),
            route.via.clone(),
            first_names(&route.iommus),
        ])
    });
    routes.collect()
}

fn stream_cells(device: &str, stream: &StreamRow) -> Vec<String> {
    vec![
        device.to_owned(),
        span(stream.rid_base, stream.length),
        stream.stream_id_base.map_or_else(String::new, |base| span(base, stream.length)),
        stream.iommu.clone(),
        yes_no(stream.enabled).to_owned(),
    ]
}

/// Formats a single ID as `0x10`, or a range as first ID and length: `0x10+0x8`.
fn span(base: u32, length: u32) -> String {
    match length {
        1 => format!("{base:#x}"),
        length => format!("{base:#x}+{length:#x}"),
    }
}

/// Joins the first names and states how many others exist.
pub fn first_names<N: AsRef<str>>(names: &[N]) -> String {
    let mut shown: Vec<_> = names.iter().take(MAX_NAMES).map(AsRef::as_ref).collect();
    let more = names.len().checked_sub(MAX_NAMES + 1);
    let more = more.map(|more| format!("and {} more", more + 1));
    shown.extend(more.as_deref());
    shown.join(" ")
}

/// Formats the first ranges of interrupts and how many others exist.
pub fn ranges(ranges: &[RangeRow]) -> String {
    let shown = ranges.iter().take(MAX_RANGES);
    let mut shown: Vec<_> = shown.map(|range| format!("{}+{}", range.first, range.count)).collect();
    if let Some(more) = ranges.len().checked_sub(MAX_RANGES + 1) {
        shown.push(format!("and {} more", more + 1));
    }
    shown.join(" ")
}

impl ControllerRow {
    /// Formats the controller's ranges of interrupts, or its lines.
    pub fn interrupts(&self) -> String {
        match (self.lines.as_slice(), self.vectors) {
            ([], _) | (_, None) => ranges(&self.ranges),
            (lines, Some(vectors)) => {
                let lines: Vec<_> = lines.iter().map(ToString::to_string).collect();
                format!("{vectors} by {}", lines.join(" "))
            }
        }
    }
}

/// Formats the first doorbell and how many others exist.
pub fn addresses(doorbells: &[u64]) -> String {
    match doorbells {
        [] => String::new(),
        [only] => format!("{only:#x}"),
        [first, others @ ..] => format!("{first:#x} and {} more", others.len()),
    }
}

/// Formats a truth value.
pub const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
