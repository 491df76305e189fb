//! Names of IORT nodes, as messages and excerpts show them.

use super::fields::{pmcg, root_complex, smmu_v2, smmu_v3};
use super::iort::{IdMapping, IortNode, NodeKind};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// Number of ITSes of a group that a name lists.
const LISTED_ITSES: usize = 4;

/// Returns the name of a node.
pub(super) fn node_name(node: IortNode<'_>) -> String {
    match node.kind {
        NodeKind::ItsGroup => {
            let ids: Vec<_> = node.its_ids().take(LISTED_ITSES).map(|id| id.to_string()).collect();
            let more = if node.its_ids().count() > LISTED_ITSES { ", …" } else { "" };
            format!("ITS group {}{more}", ids.join(", "))
        }
        NodeKind::NamedComponent => String::from(node.path()),
        NodeKind::RootComplex => {
            format!("root complex of segment {:#x}", node.get::<u32>(root_complex::SEGMENT))
        }
        NodeKind::SmmuV2 => format!("SMMUv2@{:x}", node.get::<u64>(smmu_v2::BASE)),
        NodeKind::SmmuV3 => format!("SMMUv3@{:x}", node.get::<u64>(smmu_v3::BASE)),
        NodeKind::Pmcg => format!("PMCG@{:x}", node.get::<u64>(pmcg::PAGE_0)),
        NodeKind::Rmr => format!("RMR at {:#x}", node.offset),
        NodeKind::Iwb => format!("IWB at {:#x}", node.offset),
        NodeKind::DraftRedistributorGroup => String::from("redistributor group"),
        NodeKind::Other(kind) => format!("node of type {kind} at {:#x}", node.offset),
    }
}

/// The nodes of an IORT, by offset.
pub(super) struct NodesByOffset<'a>(BTreeMap<usize, IortNode<'a>>);

impl<'a> NodesByOffset<'a> {
    pub(super) fn new(nodes: impl IntoIterator<Item = IortNode<'a>>) -> Self {
        Self(nodes.into_iter().map(|node| (node.offset, node)).collect())
    }

    /// Returns the node that a reference resolves to.
    pub(super) fn at(&self, reference: u32) -> Option<IortNode<'a>> {
        self.0.get(&usize::try_from(reference).ok()?).copied()
    }

    /// Returns the node that contains this byte of the table.
    pub(super) fn around(&self, offset: usize) -> Option<IortNode<'a>> {
        self.0.range(..=offset).next_back().map(|(_, node)| *node)
    }

    /// Returns the name of the node that a reference resolves to.
    pub(super) fn name(&self, reference: u32) -> String {
        self.at(reference).map_or_else(|| format!("no node ({reference:#x})"), node_name)
    }

    /// Formats a mapping, e.g. as `input 0x0, count 0x1, output 0x0 -> ITS group 0, single`.
    pub(super) fn mapping(&self, mapping: IdMapping) -> String {
        let single = if mapping.is_single { ", single" } else { "" };
        format!(
            "input {:#x}, count {:#x}, output {:#x} -> {}{single}",
            mapping.input,
            u64::from(mapping.id_count) + 1,
            mapping.output,
            self.name(mapping.target)
        )
    }
}
