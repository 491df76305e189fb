//! Reads IOMMUs and the requesters behind them (bindings `iommu/iommu.txt`, `pci/pci-iommu.txt`).
//!
//! An entry of `msi-map` or `iommu-map` consists of the first ID, a phandle, the cells of the first
//! ID's specifier, and the number of IDs. As for every reference, a property of the target's node
//! states how many cells a specifier has (bindings `pci/pci-msi.txt`, `pci/pci-iommu.txt`). Linux
//! has read maps this way since commit ccb2fd725d41 ("of: Respect #{iommu,msi}-cells in maps").
//! Older versions of Linux read one cell regardless of the target; newer versions still accept a
//! map written for older ones if they [recognize](is_one_cell_map) it.

use super::tree::{NodeRef, Tree, cells, cells_in_words, regions_if_any};
use crate::description::{Iommu, IommuIndex, IommuReference, IommuRouting, StreamEntry};
use crate::finding::{Fact, FindingList, Origin, Rule};
use crate::map_overlap::report_shared;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
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
        let Some(entries) = read(tree, node, KIND, findings) else {
            return IommuRouting::default();
        };
        let mut stream = |entry: &Entry| {
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
            check(node, KIND, stated, &entries, findings);
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

/// A kind of map: `msi-map` or `iommu-map`.
#[derive(Clone, Copy)]
pub(super) struct MapKind {
    /// Property that holds the map.
    pub(super) property: &'static str,
    /// Property in which a target states the number of cells in its specifiers.
    pub(super) cells: &'static str,
}

/// One entry of `msi-map` or `iommu-map`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) first: u32,
    pub(super) phandle: u32,
    /// First cell of the specifier; `None` if the target's specifiers have no cells.
    pub(super) output: Option<u32>,
    pub(super) length: u32,
    /// `true` if the entry defines the specifier of each of its IDs. Only the first cell of a
    /// specifier increases with the ID, so an entry with several cells must contain only one ID.
    pub(super) is_translated: bool,
}

/// Maximum number of cells that Linux accepts in a specifier (`MAX_PHANDLE_ARGS`).
pub(super) const MAX_CELLS: usize = 16;
/// Number of cells in a specifier if the target does not state it; Linux uses the same default for
/// maps.
const DEFAULT_CELLS: u32 = 1;

/// Reads the map of `node` up to the first entry whose end is unknown. Returns `None` if the node
/// has no map.
pub(super) fn read(
    tree: &Tree<'_>,
    node: NodeRef<'_, '_>,
    kind: MapKind,
    findings: &mut FindingList,
) -> Option<Vec<Entry>> {
    let value = node.property(kind.property)?;
    let words = cells(value).unwrap_or_default();
    let mut entries = Vec::new();
    let mut malformed = words.is_empty().then(|| format!("{} bytes hold no entry", value.len()));
    let mut rest = words.as_slice();
    let mut is_one_cell = false;
    while !rest.is_empty() {
        let target = rest.get(1).and_then(|&phandle| tree.by_phandle(phandle));
        let stated = target.and_then(|target| target.number(kind.cells)).unwrap_or(DEFAULT_CELLS);
        is_one_cell |= entries.is_empty() && stated == 2 && is_one_cell_map(&words);
        let count = if is_one_cell { 1 } else { stated };
        let Some((entry, after)) = split_entry(rest, count) else {
            malformed = Some(cut_off(target, kind, count, rest.len()));
            break;
        };
        if !entry.is_translated {
            let message = format!(
                "{} IDs from {:#x} on, but a specifier of {count} cells fits one",
                entry.length, entry.first
            );
            findings.add(Rule::SeveralOutputCells, node.origin(kind.property), message);
        }
        entries.push(entry);
        if target.is_none() {
            break;
        }
        rest = after;
    }
    if let Some(message) = malformed {
        findings.add(Rule::MalformedProperty, node.origin(kind.property), message);
    }
    Some(entries)
}

/// Formats the message about an entry whose phandle belongs to no node. The message adds a hint if
/// the entry begins with the phandle of a possible target.
pub(super) fn unresolved(tree: &Tree<'_>, kind: MapKind, entry: &Entry) -> String {
    let first = tree.by_phandle(entry.first).filter(|node| node.has(kind.cells));
    let hint = match first {
        Some(node) => format!(
            "; the entry begins with the phandle of {}, but the first cell is a requester ID",
            node.path()
        ),
        None => String::new(),
    };
    format!("`{}`: no node has phandle {:#x}{hint}", kind.property, entry.phandle)
}

/// Checks that the entries of a map can be reached under its mask, and that their IDs exist.
pub(super) fn check(
    node: NodeRef<'_, '_>,
    kind: MapKind,
    mask: Option<u32>,
    entries: &[Entry],
    findings: &mut FindingList,
) {
    let property = kind.property;
    let mask = mask.unwrap_or(u32::MAX);
    for entry in entries {
        let (first, length) = (entry.first, entry.length);
        if first & !mask != 0 {
            let message = format!(
                "`{property}-mask` {mask:#x} clears bits of the first requester {first:#x}"
            );
            findings.add(Rule::MapMask, node.origin(property), message);
        }
        let output = entry.output.unwrap_or(first);
        let fits = |last: u32| first.checked_add(last).and(output.checked_add(last)).is_some();
        // Some trees have an empty `iommu-map` entry, which the boot loader fills in.
        let is_empty_iommu_map = length == 0 && property != "msi-map";
        if !is_empty_iommu_map && !length.checked_sub(1).is_some_and(fits) {
            let message = format!(
                "an entry of `{property}` has {length} requesters from {first:#x} on, with IDs \
                 from {output:#x} on"
            );
            findings.add(Rule::MapRange, node.origin(property), message);
        }
    }
}

fn is_its(node: NodeRef<'_, '_>) -> bool {
    node.is_compatible(&["arm,gic-v3-its"])
}

/// Returns `true` if the `msi-map` of `node` can be read only with one cell per DeviceID, although
/// its ITS states another number in `#msi-cells`. In that case, the number is wrong, not the map.
pub(super) fn is_for_one_cell_its(tree: &Tree<'_>, node: NodeRef<'_, '_>, kind: MapKind) -> bool {
    let words = node.property(kind.property).and_then(cells).unwrap_or_default();
    let ends = |its_cells: Option<u32>| {
        let mut rest = words.as_slice();
        while let Some(&phandle) = rest.get(1) {
            let Some(target) = tree.by_phandle(phandle) else { return false };
            let stated = target.number(kind.cells).unwrap_or(DEFAULT_CELLS);
            let count = its_cells.filter(|_| is_its(target)).unwrap_or(stated);
            let Some((_, after)) = split_entry(rest, count) else { return false };
            rest = after;
        }
        rest.is_empty()
    };
    !ends(None) && ends(Some(1))
}

/// Formats the message about a map whose last `remaining` cells are too few for an entry that
/// refers to `target`.
fn cut_off(target: Option<NodeRef<'_, '_>>, kind: MapKind, count: u32, remaining: usize) -> String {
    let Some(target) = target else { return format!("the last {remaining} cells hold no entry") };
    let expected = u64::from(count) + 3;
    let path = target.path();
    let cells = kind.cells;
    format!("by its `{cells}`, an entry for {path} has {expected} cells, but {remaining} remain")
}

/// Splits the first entry, whose specifier has `count` cells, off `words`. Returns `None` if
/// `words` is too short, or if `count` exceeds [`MAX_CELLS`].
fn split_entry(words: &[u32], count: u32) -> Option<(Entry, &[u32])> {
    let count = usize::try_from(count).ok().filter(|&count| count <= MAX_CELLS)?;
    let (&[first, phandle], after) = words.split_first_chunk()?;
    let (output, after) = after.split_at_checked(count)?;
    let (&length, after) = after.split_first()?;
    let output = output.first().copied();
    let is_translated = count <= 1 || length <= 1;
    Some((Entry { first, phandle, output, length, is_translated }, after))
}

/// Returns `true` if a map whose first target states two cells was written with one cell per
/// specifier, i.e. if all of its one-cell entries refer to the same target and contain one ID each.
/// Linux recognizes the maps of old trees by the same criteria (`of_check_bad_map`).
fn is_one_cell_map(words: &[u32]) -> bool {
    let (entries, rest) = words.as_chunks::<4>();
    let shared = words.get(1);
    let is_old = |[_, phandle, _, length]: &[u32; 4]| Some(phandle) == shared && *length == 1;
    rest.is_empty() && entries.iter().all(is_old)
}
