//! Contents of a picture: boxes and arrows.

use super::cpu_groups;
use crate::inspect::{DeviceRow, Inspection, RouteRow};
use crate::source::{CpuClusters, Source};
use crate::work;
use gic_firmware::{Controller, Description, Gic, Iommu, NodeId, SecondaryGic};
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of routes listed in a box. A final line states the number of further routes, if
/// any.
const MAX_LINES: usize = 4;

/// Maximum number of boxes in a column. A final box represents the others. No real machine is known
/// to have more.
const MAX_BOXES: usize = 200;

/// The columns, from left to right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Column {
    Requester,
    Iommu,
    Controller,
    SecondaryGic,
    Gic,
    Cpus,
}

impl Column {
    pub(crate) const ALL: [Self; 6] =
        [Self::Requester, Self::Iommu, Self::Controller, Self::SecondaryGic, Self::Gic, Self::Cpus];

    /// Returns the heading of the column.
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Requester => "requesters",
            Self::Iommu => "IOMMUs",
            Self::Controller => "MSI controllers",
            Self::SecondaryGic => "secondary GICs",
            Self::Gic => "GIC",
            Self::Cpus => "CPUs",
        }
    }
}

/// A box.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) column: Column,
    /// Full path of the node, which is unique within a column.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) lines: Vec<String>,
    pub(crate) is_enabled: bool,
}

/// An arrow between boxes, as two indices into the list of boxes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Edge {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// A picture's contents.
#[derive(Debug, Default)]
pub struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: BTreeSet<Edge>,
    /// Box of each of the description's controllers.
    pub(crate) controllers: Vec<usize>,
    /// First box with each identifier.
    places: BTreeMap<(Column, NodeId), usize>,
    /// Number of objects in each column.
    counts: BTreeMap<Column, usize>,
    /// The box that represents a column's objects beyond the first [`MAX_BOXES`].
    others: BTreeMap<Column, usize>,
}

impl Graph {
    /// Creates the picture of a source, whose inspection lists the requesters and their routes.
    pub fn of(source: &Source, inspection: &Inspection) -> Self {
        let (mut graph, description) = (Self::default(), &source.description);
        graph.add_iommus(description, inspection);
        graph.add_controllers(description);
        for device in &inspection.devices {
            graph.requester(device);
        }
        *graph.counts.entry(Column::Requester).or_default() += inspection.omitted.devices.omitted();
        graph.root(description, &source.cpu_clusters());
        graph.name_others();
        graph.tell_apart();
        graph
    }

    /// Returns the index of the box with this identifier in the given column, or of the box that
    /// represents it.
    pub(crate) fn place(&self, column: Column, id: &NodeId) -> Option<usize> {
        self.places.get(&(column, id.clone())).copied()
    }

    /// Returns the box that an arrow from this box leads to, on the way to the GIC.
    pub(crate) fn after(&self, from: usize) -> Option<usize> {
        let below =
            self.edges.range(Edge { from, to: 0 }..).next().filter(|edge| edge.from == from);
        below.map(|edge| edge.to).filter(|to| self.nodes[*to].column < Column::Cpus)
    }

    /// Adds boxes for the IOMMUs that messages pass through.
    fn add_iommus(&mut self, description: &Description, inspection: &Inspection) {
        let routes = inspection.devices.iter().flat_map(|device| &device.routes);
        let streams = routes.flat_map(|route| &route.streams);
        let used: BTreeSet<&str> = streams.map(|stream| stream.iommu.as_str()).collect();
        let used = |iommu: &&Iommu| used.contains(iommu.id.as_str());
        for iommu in description.iommus.iter().filter(used) {
            let kind = || iommu.compatible.first().cloned().into_iter().collect();
            self.add(Column::Iommu, &iommu.id, iommu.status.is_enabled(), kind);
        }
    }

    fn add_controllers(&mut self, description: &Description) {
        for controller in &description.controllers {
            let lines = || {
                let mut lines = vec![controller.kind.to_string()];
                lines.extend(doorbell(description, controller));
                for range in controller.ranges.iter().take(MAX_LINES) {
                    lines.push(format!("INTIDs {}+{}", range.first().get(), range.count()));
                }
                if let Some(more) = controller.ranges.len().checked_sub(MAX_LINES + 1) {
                    lines.push(format!("… {} more", more + 1));
                }
                let wires = controller.lines.iter().map(|line| line.intid.to_string());
                let wires: Vec<_> = wires.collect();
                if !wires.is_empty() {
                    lines.push(format!("lines {}", wires.join(" ")));
                }
                if !controller.is_driven() {
                    lines.push("no driver".to_owned());
                }
                lines
            };
            let is_enabled = controller.status.is_enabled();
            let place = self.add(Column::Controller, &controller.id, is_enabled, lines);
            self.controllers.push(place);
        }
    }

    fn requester(&mut self, device: &DeviceRow) {
        let lines = || {
            let shown = device.routes.iter().take(MAX_LINES);
            let mut lines: Vec<_> = shown.map(RouteRow::ids).collect();
            if device.routes.len() > MAX_LINES {
                lines.push(format!("… {} more", device.routes.len() - MAX_LINES));
            }
            lines
        };
        let from = self.add(Column::Requester, &NodeId::new(&device.id), device.enabled, lines);
        for route in &device.routes {
            let Some(&to) = self.controllers.get(route.index.get()) else { continue };
            for stream in &route.streams {
                work::step();
                let iommu = self.place(Column::Iommu, &NodeId::new(&stream.iommu));
                self.edges.extend(iommu.map(|iommu| Edge { from, to: iommu }));
                self.edges.extend(iommu.map(|iommu| Edge { from: iommu, to }));
            }
            if route.streams.is_empty() {
                self.edges.insert(Edge { from, to });
            }
        }
    }

    /// Adds the GIC and the boxes of the CPUs.
    fn root(&mut self, description: &Description, clusters: &CpuClusters) {
        let Some(gic) = &description.gic else { return };
        let is_enabled = gic.status.is_enabled();
        let root = self.add(Column::Gic, &gic.id, is_enabled, || gic_lines(gic));
        self.secondary_gics(description);
        for (controller, &from) in description.controllers.iter().zip(&self.controllers) {
            let to = match &controller.secondary_gic {
                None => Some(root),
                Some(id) => self.place(Column::SecondaryGic, id),
            };
            self.edges.extend(to.map(|to| Edge { from, to }));
        }
        for group in cpu_groups::of(description, clusters) {
            let id = NodeId::new(&group.id);
            let lines = || group.lines();
            let to = self.add(Column::Cpus, &id, group.enabled > 0, lines);
            if let Some(node) = self.nodes.get_mut(to) {
                node.title = group.title;
            }
            for cpu in group.cpus {
                self.places.insert((Column::Cpus, cpu), to);
            }
            self.edges.insert(Edge { from: root, to });
        }
    }

    /// Adds the secondary GICs, each with the interrupt that it raises at another controller.
    fn secondary_gics(&mut self, description: &Description) {
        for SecondaryGic { gic, parent } in &description.secondary_gics {
            let lines = || {
                let mut lines = gic_lines(gic);
                if let Some(parent) = parent {
                    let at = parent.controller.as_str().rsplit('/').next().unwrap_or_default();
                    let intid = parent.intid.map(|intid| format!("INTID {} of ", intid.get()));
                    lines.push(format!("{}{at}", intid.unwrap_or_default()));
                }
                lines
            };
            let is_enabled = gic.status.is_enabled();
            let from = self.add(Column::SecondaryGic, &gic.id, is_enabled, lines);
            let root = parent.as_ref().and_then(|up| self.place(Column::Gic, &up.controller));
            self.edges.extend(root.map(|to| Edge { from, to }));
        }
    }

    /// Adds a box and returns its index. If the column is full, returns the box that represents the
    /// others, whose title [`name_others`](Self::name_others) sets.
    fn add(
        &mut self,
        column: Column,
        id: &NodeId,
        is_enabled: bool,
        lines: impl FnOnce() -> Vec<String>,
    ) -> usize {
        work::step();
        let count = self.counts.entry(column).or_default();
        *count += 1;
        let next = self.nodes.len();
        let place = if *count <= MAX_BOXES {
            let title = id.as_str().rsplit('/').next().unwrap_or_default().to_owned();
            let lines = lines();
            self.nodes.push(Node { column, id: id.to_string(), title, lines, is_enabled });
            next
        } else {
            *self.others.entry(column).or_insert_with(|| {
                let lines = vec!["not drawn one by one".to_owned()];
                let [id, title] = ["others".to_owned(), String::new()];
                self.nodes.push(Node { column, id, title, lines, is_enabled: true });
                next
            })
        };
        self.places.entry((column, id.clone())).or_insert(place);
        place
    }

    /// Sets the title of each box that represents others to their number.
    fn name_others(&mut self) {
        for (column, place) in &self.others {
            let count = self.counts.get(column).map_or(0, |count| count - MAX_BOXES);
            if let Some(node) = self.nodes.get_mut(*place) {
                node.title = format!("{count} more");
            }
        }
    }

    /// Prefixes titles with the parent's name if they occur more than once in a column.
    fn tell_apart(&mut self) {
        let mut counts: BTreeMap<(Column, String), usize> = BTreeMap::new();
        for node in &self.nodes {
            *counts.entry((node.column, node.title.clone())).or_default() += 1;
        }
        for node in &mut self.nodes {
            if counts[&(node.column, node.title.clone())] > 1 {
                let parts: Vec<_> = node.id.rsplit('/').take(2).collect();
                node.title = parts.into_iter().rev().collect::<Vec<_>>().join("/");
            }
        }
    }
}

fn gic_lines(gic: &Gic) -> Vec<String> {
    let mut lines = vec![gic.version.to_string()];
    match gic.redistributors.len() {
        0 => {}
        1 => lines.push("1 redistributor region".to_owned()),
        count => lines.push(format!("{count} redistributor regions")),
    }
    lines
}

/// Formats the doorbell. If the controller has several doorbells, formats their number and the
/// first address.
fn doorbell(description: &Description, controller: &Controller) -> Option<String> {
    let doorbells = description.doorbells(controller);
    let first = doorbells.first()?;
    Some(match doorbells.len() {
        1 => format!("doorbell {first:#x}"),
        count => format!("{count} doorbells from {first:#x} on"),
    })
}
