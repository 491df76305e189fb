//! The list of CPUs.

use crate::graph::{Column, Graph};
use crate::inspect::Inspection;
use crate::source::CpuClusters;
use gic_firmware::NodeId;

/// A CPU.
#[derive(Debug)]
pub(super) struct CpuLine {
    pub(super) id: String,
    /// Index of the box of the CPU's group in the picture.
    pub(super) node: Option<usize>,
    pub(super) affinity: String,
    /// The sockets and clusters that contain the CPU, outermost first; empty if unknown.
    pub(super) clusters: String,
    pub(super) enabled: bool,
}

/// Returns one line per CPU.
pub(super) fn lines(
    inspection: &Inspection,
    graph: &Graph,
    clusters: &CpuClusters,
) -> Vec<CpuLine> {
    let rows = inspection.cpus.iter().map(|cpu| {
        let id = NodeId::new(&cpu.id);
        CpuLine {
            node: graph.place(Column::Cpus, &id),
            id: cpu.id.clone(),
            affinity: cpu.affinity.clone(),
            clusters: clusters.get(&id).map_or_else(String::new, |path| path.join(", ")),
            enabled: cpu.enabled,
        }
    });
    rows.collect()
}
