//! Reads IOMMUs and the requesters behind them (bindings `iommu/iommu.txt`, `pci/pci-iommu.txt`).

use super::address::{cells, cells_in_words, regions_if_any};
use super::map_entries::{self, MapKind};
use super::tree::{NodeRef, Tree};
use crate::finding::{Fact, FindingList, Origin, Rule};
use crate::map_overlap::report_shared;
use crate::requester::{Iommu, IommuIndex, IommuReference, IommuRouting, StreamEntry};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use msi_types::RequesterId;

/// Property that marks an IOMMU.
pub(super) const CELLS: &str = "#iommu-cells";
pub(super) const MAP: &str = "iommu-map";
pub(super) const MASK: &str = "iommu-map-mask";
/// Property that refers to the IOMMUs of one device.
pub(super) const REFERENCES: &str = "iommus";

/// The IOMMUs of a tree, indexed by node.
#[derive(Default)]
pub(super) struct IommuList {
    pub(super) list: Vec<Iommu>,
    by_node: BTreeMap<usize, IommuIndex>,
}

impl IommuList {
    pub(super) fn read(tree: &Tree<'_>) -> Self {
        let mut iommus = Self::default();
        // Some trees mark PCI hosts as IOMMUs by mistake.
        for node in tree.nodes().filter(|node| node.has(CELLS) && !node.has(MAP)) {
            iommus.by_node.insert(node.index(), IommuIndex::new(iommus.list.len()));
            iommus.list.push(Iommu {
                id: node.id(),
                compatible: node.compatible(),
                status: node.status(),
                registers: regions_if_any(node).into_iter().next(),
            });
        }
        iommus
    }

    /// Returns the map from requesters behind `node` to IOMMUs; `node` is a PCI host or another
    /// bus.
    pub(super) fn routing(
        &self,
        tree: &Tree<'_>,
        node: NodeRef<'_, '_>,
        findings: &mut FindingList,
    ) -> IommuRouting {
        const KIND: MapKind = MapKind { property: MAP, cells: CELLS };
        let Some(entries) = map_entries::read(tree, node, KIND, findings) else {
            return IommuRouting::default();
        };
        let mut stream = |entry: &map_entries::Entry| {
            let iommu = self.target(tree, node.origin(MAP), entry.phandle, findings);
            let stream = StreamEntry {
                rid_base: RequesterId::new(entry.first),
                length: entry.length,
                iommu: iommu.filter(|_| entry.is_translated),
                stream_id_base: entry.output,
            };
            Fact::new(stream, node.origin(MAP))
        };
        let map: Vec<Fact<StreamEntry>> = entries.iter().map(&mut stream).collect();
        let mask = mask(node, findings);
        let is_resolved = map.iter().all(|entry| entry.iommu.is_some());
        if is_resolved && node.status().is_enabled() {
            let stated = mask.as_ref().map(|mask| mask.value);
            map_entries::check(node, KIND, stated, &entries, findings);
            let claims = map.iter().map(|one| (one.rid_base.get(), one.length, &one.origin));
            report_shared(claims, findings);
        }
        IommuRouting { mask, map }
    }

    /// Returns the IOMMUs that translate accesses of the device `node`. The list ends at a broken
    /// reference, because the number of cells that follow a broken reference is unknown.
    pub(super) fn passed_by(
        &self,
        tree: &Tree<'_>,
        node: NodeRef<'_, '_>,
        findings: &mut FindingList,
    ) -> Vec<Fact<IommuReference>> {
        let cells = node.property(REFERENCES).and_then(cells).unwrap_or_default();
        let mut passed = Vec::new();
        let mut rest = cells.as_slice();
        while let Some((&phandle, after)) = rest.split_first() {
            let Some(index) = self.target(tree, node.origin(REFERENCES), phandle, findings) else {
                break;
            };
            let count = tree.by_phandle(phandle).and_then(|iommu| iommu.number(CELLS));
            let count =
                count.map_or(usize::MAX, |count| usize::try_from(count).unwrap_or(usize::MAX));
            let specifier = after.get(..count).unwrap_or(after).to_vec();
            if specifier.len() < count {
                let message = format!(
                    "by its `{CELLS}`, {} must follow the reference to the IOMMU, but {} do",
                    cells_in_words(count),
                    specifier.len()
                );
                findings.add(Rule::MalformedProperty, node.origin(REFERENCES), message);
            }
            let reference = IommuReference { iommu: index, specifier };
            passed.push(Fact::new(reference, node.origin(REFERENCES)));
            rest = after.get(count..).unwrap_or_default();
        }
        passed
    }

    fn target(
        &self,
        tree: &Tree<'_>,
        from: Origin,
        phandle: u32,
        findings: &mut FindingList,
    ) -> Option<IommuIndex> {
        let Some(node) = tree.by_phandle(phandle) else {
            let message = format!("`{}`: no node has phandle {phandle:#x}", from.item());
            findings.add(Rule::UnknownPhandle, from, message);
            return None;
        };
        let index = self.by_node.get(&node.index()).copied();
        if index.is_none() {
            let message = format!("{} is not an IOMMU", node.path());
            findings.add(Rule::NotAnIommu, from, message);
        }
        index
    }
}

fn mask(node: NodeRef<'_, '_>, findings: &mut FindingList) -> Option<Fact<u32>> {
    let value = node.property(MASK)?;
    let mask = node.number(MASK);
    if mask.is_none() {
        let message = format!("{} bytes are not a mask of one cell", value.len());
        findings.add(Rule::MalformedProperty, node.origin(MASK), message);
    }
    Some(Fact::new(mask?, node.origin(MASK)))
}
