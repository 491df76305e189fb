//! Links locations in firmware's input to boxes in the picture.

use crate::graph::{Column, Graph};
use gic_firmware::{Description, Fact, MsiRouting, NodeId, Origin};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Locations in the input, each with the box in the picture that shows the fact read there.
#[derive(Debug, Default)]
pub(super) struct Anchors {
    exact: BTreeMap<Origin, usize>,
    /// First box with a fact from each node.
    nodes: BTreeMap<Arc<str>, usize>,
}

impl Anchors {
    /// Collects the locations from which each box's facts were read.
    pub(super) fn of(description: &Description, graph: &Graph) -> Self {
        let mut anchors = Self::default();
        anchors.gic(description, graph);
        anchors.controllers(description, graph);
        anchors.requesters(description, graph);
        for iommu in &description.iommus {
            let origins = [&iommu.status.origin];
            let registers = iommu.registers.as_ref().map(|fact| &fact.origin);
            anchors.add(
                graph.place(Column::Iommu, &iommu.id),
                &iommu.id,
                origins.into_iter().chain(registers),
            );
        }
        for cpu in &description.cpus {
            let group = graph.place(Column::Cpus, &cpu.id);
            anchors.add(group, &cpu.id, [&cpu.affinity.origin, &cpu.status.origin]);
        }
        anchors
    }

    /// Returns the box for a location. This is the box with a fact from exactly this location, else
    /// a box with a fact from the same node, else the box of the nearest ancestor.
    pub(super) fn find(&self, origin: &Origin) -> Option<usize> {
        let place = origin.place()?;
        let exact = self.exact.get(origin).copied();
        exact.or_else(|| ancestors(place).find_map(|at| self.nodes.get(at).copied()))
    }

    fn controllers(&mut self, description: &Description, graph: &Graph) {
        for (controller, node) in
            description.controllers.iter().zip(graph.controllers.iter().copied())
        {
            let ranges = controller.ranges.iter().map(|fact| &fact.origin);
            let windows = controller.registers.iter().chain(&controller.pre_its);
            let lines = controller.lines.iter().map(|fact| &fact.origin);
            let windows = windows.map(|fact| &fact.origin).chain(lines);
            let others = [&controller.status.origin, &controller.msi_cells.origin];
            self.add(Some(node), &controller.id, ranges.chain(windows).chain(others));
        }
    }

    fn requesters(&mut self, description: &Description, graph: &Graph) {
        for host in &description.hosts {
            let iommus = host.iommu.map.iter().map(|fact| &fact.origin);
            let others = [&host.status.origin, &host.buses.origin];
            let origins = statements(&host.msi).chain(iommus).chain(others);
            self.add(graph.place(Column::Requester, &host.id), &host.id, origins);
            for bridge in &host.bridges {
                let origins = statements(&bridge.msi).chain([&bridge.status.origin]);
                self.add(graph.place(Column::Requester, &bridge.id), &bridge.id, origins);
            }
        }
        for device in &description.devices {
            let iommus = device.iommus.iter().map(|fact| &fact.origin);
            let origins = statements(&device.msi).chain(iommus).chain([&device.status.origin]);
            self.add(graph.place(Column::Requester, &device.id), &device.id, origins);
        }
    }

    fn gic(&mut self, description: &Description, graph: &Graph) {
        for gic in description.gics() {
            let place = graph.place(Column::Gic, &gic.id);
            let place = place.or_else(|| graph.place(Column::SecondaryGic, &gic.id));
            let regions = gic.redistributors.iter().chain([&gic.distributor]);
            let regions = regions.map(|fact| &fact.origin);
            let others = [&gic.version.origin, &gic.status.origin];
            self.add(place, &gic.id, regions.chain(others));
        }
    }

    fn add<'o>(
        &mut self,
        node: Option<usize>,
        id: &NodeId,
        origins: impl IntoIterator<Item = &'o Origin>,
    ) {
        let Some(node) = node else { return };
        origins.into_iter().for_each(|origin| self.add_one(node, origin));
        self.add_one(node, &id.origin(""));
    }

    fn add_one(&mut self, node: usize, origin: &Origin) {
        let Some(place) = origin.place() else { return };
        if !self.nodes.contains_key(place) {
            self.nodes.insert(place.into(), node);
        }
        if !self.exact.contains_key(origin) {
            self.exact.insert(origin.clone(), node);
        }
    }
}

/// Returns the locations that state a routing.
fn statements(msi: &MsiRouting) -> impl Iterator<Item = &Origin> {
    let map = msi.map.iter().flatten().map(|fact| &fact.origin);
    map.chain(msi.parents.iter().map(|fact| &fact.origin)).chain(msi.mask.iter().map(origin_of))
}

const fn origin_of<T>(fact: &Fact<T>) -> &Origin {
    &fact.origin
}

/// Returns the paths of a node and its ancestors. The root node is excluded because it belongs to
/// no box.
fn ancestors(place: &str) -> impl Iterator<Item = &str> {
    let paths = std::iter::successors(Some(place), |path| Some(path.rsplit_once('/')?.0));
    paths.filter(|path| !path.is_empty() && *path != "/")
}
