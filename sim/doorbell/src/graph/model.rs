//! Contents of a picture: boxes and arrows.

use crate::requesters::{self, Requester};
use gic_firmware::{Controller, CpuNode, Description, Gic, NodeId, RouteSpan, SecondaryGic};
use std::collections::{BTreeMap, BTreeSet};

/// Maximum number of routes listed in a box. A final line states the number of further routes, if
/// any.
const MAX_LINES: usize = 4;

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
pub(crate) struct Graph {
    pub(crate) nodes: Vec<Node>,
    pub(crate) edges: BTreeSet<Edge>,
}

impl Graph {
    /// Creates the picture for a description, with its requesters and the controllers that they
    /// signal through.
    pub(crate) fn of(description: &Description) -> Self {
        let mut graph = Self::default();
        let iommus = graph.iommus(description);
        let controllers = graph.add_controllers(description);
        let reader = Reader { description, iommus, controllers };
        for requester in requesters::all(description) {
            graph.requester(&reader, &requester);
        }
        graph.root(description, &reader.controllers);
        let mut graph = graph.without_idle_iommus();
        graph.tell_apart();
        graph
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

    /// Returns the index of the box with this identifier in the given column.
    pub(crate) fn place(&self, column: Column, id: &NodeId) -> Option<usize> {
        self.nodes.iter().position(|node| node.column == column && node.id == id.as_str())
    }

    /// Returns the box indices of the description's controllers, in order.
    pub(crate) fn controllers(&self) -> impl Iterator<Item = usize> {
        let all = self.nodes.iter().enumerate();
        all.filter(|(_, node)| node.column == Column::Controller).map(|(index, _)| index)
    }

    /// Removes IOMMUs that no message passes through.
    fn without_idle_iommus(self) -> Self {
        let used: BTreeSet<usize> = self.edges.iter().map(|edge| edge.to).collect();
        let mut places = vec![None; self.nodes.len()];
        let mut nodes = Vec::new();
        for (index, node) in self.nodes.into_iter().enumerate() {
            if node.column != Column::Iommu || used.contains(&index) {
                places[index] = Some(nodes.len());
                nodes.push(node);
            }
        }
        let moved = |edge: Edge| Some(Edge { from: places[edge.from]?, to: places[edge.to]? });
        Self { nodes, edges: self.edges.iter().filter_map(|edge| moved(*edge)).collect() }
    }

    fn iommus(&mut self, description: &Description) -> Vec<usize> {
        let add = |iommu: &gic_firmware::Iommu| {
            let kind = iommu.compatible.first().cloned().into_iter().collect();
            self.add(Column::Iommu, &iommu.id, kind, iommu.status.is_enabled())
        };
        description.iommus.iter().map(add).collect()
    }

    fn add_controllers(&mut self, description: &Description) -> Vec<usize> {
        let add = |controller: &Controller| {
            let mut lines = vec![controller.kind.to_string()];
            lines.extend(doorbell(description, controller));
            for range in controller.ranges.iter().take(MAX_LINES) {
                lines.push(format!("INTIDs {}+{}", range.first().get(), range.count()));
            }
            self.add(Column::Controller, &controller.id, lines, controller.status.is_enabled())
        };
        description.controllers.iter().map(add).collect()
    }

    fn requester(&mut self, reader: &Reader<'_>, requester: &Requester<'_>) {
        let spans = &requester.spans;
        let mut lines: Vec<_> =
            spans.iter().take(MAX_LINES).map(|span| route(reader.description, span)).collect();
        if spans.len() > MAX_LINES {
            lines.push(format!("… {} more", spans.len() - MAX_LINES));
        }
        let is_enabled = requester.status.is_enabled();
        let from = self.add(Column::Requester, requester.id, lines, is_enabled);
        for span in spans {
            let Some(&to) = reader.controllers.get(span.controller.get()) else { continue };
            let passed = requester.iommus(span);
            let passed: Vec<_> =
                passed.iter().filter_map(|iommu| reader.iommus.get(iommu.get())).collect();
            for &&iommu in &passed {
                self.edges.insert(Edge { from, to: iommu });
                self.edges.insert(Edge { from: iommu, to });
            }
            if passed.is_empty() {
                self.edges.insert(Edge { from, to });
            }
        }
    }

    /// Adds the GIC and one box per CPU cluster.
    fn root(&mut self, description: &Description, controllers: &[usize]) {
        let Some(gic) = &description.gic else { return };
        let root = self.add(Column::Gic, &gic.id, gic_lines(gic), gic.status.is_enabled());
        for (controller, &from) in description.controllers.iter().zip(controllers) {
            if controller.secondary_gic.is_none() {
                self.edges.insert(Edge { from, to: root });
            }
        }
        self.secondary_gics(description, controllers);
        let mut clusters: BTreeMap<u64, (usize, usize)> = BTreeMap::new();
        for cpu in &description.cpus {
            let (all, enabled) = clusters.entry(cluster_of(cpu)).or_default();
            *all += 1;
            *enabled += usize::from(cpu.status.is_enabled());
        }
        for (cluster, (all, enabled)) in clusters {
            let id = cluster_id(cluster);
            let line = format!("CPUs: {all}, enabled: {enabled}");
            let to = self.add(Column::Cpus, &id, vec![line], enabled > 0);
            self.edges.insert(Edge { from: root, to });
        }
    }

    /// Adds the secondary GICs, each with the interrupt that it raises at another controller.
    fn secondary_gics(&mut self, description: &Description, controllers: &[usize]) {
        for SecondaryGic { gic, parent } in &description.secondary_gics {
            let mut lines = gic_lines(gic);
            if let Some(parent) = parent {
                let at = parent.controller.as_str().rsplit('/').next().unwrap_or_default();
                let intid = parent.intid.map(|intid| format!("INTID {} of ", intid.get()));
                lines.push(format!("{}{at}", intid.unwrap_or_default()));
            }
            let to = self.add(Column::SecondaryGic, &gic.id, lines, gic.status.is_enabled());
            for (controller, &from) in description.controllers.iter().zip(controllers) {
                if controller.secondary_gic.as_ref() == Some(&gic.id) {
                    self.edges.insert(Edge { from, to });
                }
            }
            let root = parent.as_ref().and_then(|up| self.place(Column::Gic, &up.controller));
            self.edges.extend(root.map(|root| Edge { from: to, to: root }));
        }
    }

    fn add(&mut self, column: Column, id: &NodeId, lines: Vec<String>, is_enabled: bool) -> usize {
        let title = id.as_str().rsplit('/').next().unwrap_or_default().to_owned();
        self.nodes.push(Node { column, id: id.to_string(), title, lines, is_enabled });
        self.nodes.len() - 1
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

/// Indices of boxes, by the position of IOMMUs and controllers in the description.
struct Reader<'d> {
    description: &'d Description,
    iommus: Vec<usize>,
    controllers: Vec<usize>,
}

/// Returns the identifier of the box for a CPU's cluster.
pub(crate) fn cluster(cpu: &CpuNode) -> NodeId {
    cluster_id(cluster_of(cpu))
}

/// Returns a CPU's affinity without its lowest level.
fn cluster_of(cpu: &CpuNode) -> u64 {
    cpu.affinity.mpidr() >> 8
}

fn cluster_id(cluster: u64) -> NodeId {
    NodeId::from(format!("cluster {cluster:#x}"))
}

/// Formats a route for a requester's box. The DeviceID is shown only for an ITS, and the requester
/// IDs only for nodes that have any.
fn route(description: &Description, span: &RouteSpan) -> String {
    let (first, length) = (span.rid_base.get(), span.length);
    let requesters = match (first, length) {
        (0, 1) => String::new(),
        (_, 1) => format!("{first:#x} → "),
        _ => format!("{first:#x}+{length:#x} → "),
    };
    let controller = description.controller(span.controller);
    if controller.is_some_and(|controller| controller.kind.needs_device_id()) {
        return format!("{requesters}DeviceID {:#x}", span.device_id_base.get());
    }
    format!("{requesters}{}", controller.map_or("", |controller| controller.kind.as_str()))
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
