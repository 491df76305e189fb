//! Follows IORT ID mappings from a requester to the node that receives its messages.
//!
//! As in Linux, the first mapping that contains an ID is used, with one exception. If the last ID
//! of a range is also the first ID of a later range, the ID belongs to the later range, because
//! some firmware states the number of IDs instead of the number minus one.

use super::iort::{IdMapping, IortNode, NodeKind};
use super::table::{Signature, origin};
use crate::finding::{FindingList, Origin, Rule};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::cell::Cell;

/// Maximum number of nodes that a message may pass through; the specification allows two.
const MAX_DEPTH: usize = 8;
/// Total number of mappings that may be followed in a table. Real tables need a few hundred steps.
const STEPS: u32 = 1 << 18;

/// IORT nodes, keyed by offset.
pub(super) struct IdMaps {
    nodes: BTreeMap<usize, Node>,
    steps: Cell<u32>,
}

struct Node {
    kind: NodeRole,
    mappings: Vec<IdMapping>,
}

/// The role of a node on a message's path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NodeRole {
    /// An ITS group, which ends a path; the number is that of its first ITS, or `None` if the group
    /// is empty.
    ItsGroup(Option<u32>),
    /// The redistributors, which end a path.
    Redistributors,
    /// An IOMMU, which maps IDs to the next node.
    Iommu,
    /// Any other node. No mapping may refer to such a node.
    Other,
}

/// Range of consecutive requester IDs, and the DeviceIDs that the IORT maps them to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    /// First requester ID.
    pub(super) requester: u32,
    /// Number of requester IDs minus one.
    pub(super) more: u32,
    /// ID that the first requester has at the end of the path.
    pub(super) device: u32,
    /// End of the path.
    pub(super) end: End,
    /// Offset of the node of the first IOMMU on the path.
    pub(super) iommu: Option<usize>,
}

/// The end of a message's path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The ITS with this number.
    Its(u32),
    /// The redistributors.
    Redistributors,
    /// No controller, because the reference is broken.
    Nowhere,
}

impl IdMaps {
    pub(super) fn read<'a>(
        nodes: impl Iterator<Item = IortNode<'a>>,
        findings: &mut FindingList,
    ) -> Self {
        let nodes = nodes.map(|node| {
            let kind = match node.kind {
                NodeKind::ItsGroup => NodeRole::ItsGroup(node.its_ids().next()),
                NodeKind::SmmuV2 | NodeKind::SmmuV3 => NodeRole::Iommu,
                NodeKind::DraftRedistributorGroup => NodeRole::Redistributors,
                _ => NodeRole::Other,
            };
            (node.offset, Node { kind, mappings: passing(node, findings) })
        });
        Self { nodes: nodes.collect(), steps: Cell::new(STEPS) }
    }

    /// Returns the mappings that the node at `offset` applies to messages passing through it.
    pub(super) fn of(&self, offset: usize) -> &[IdMapping] {
        self.nodes.get(&offset).map_or(&[], |node| &node.mappings)
    }

    /// Follows the IDs in `mapping` to the end of their paths. Omits IDs that an IOMMU doesn't map.
    pub(super) fn follow(&self, mapping: IdMapping, findings: &mut FindingList) -> Vec<Span> {
        let more = if mapping.is_single { 0 } else { mapping.id_count };
        let requester = if mapping.is_single { 0 } else { mapping.input };
        let start =
            Span { requester, more, device: mapping.output, end: End::Nowhere, iommu: None };
        let mut spans = Vec::new();
        Walk { maps: self, origin: mapping.origin(), findings, spans: &mut spans }.enter(
            mapping.target,
            start,
            0,
        );
        spans
    }
}

struct Walk<'w> {
    maps: &'w IdMaps,
    origin: Origin,
    findings: &'w mut FindingList,
    spans: &'w mut Vec<Span>,
}

impl Walk<'_> {
    /// Follows the IDs in `span` from the node at offset `target` to the end of their paths.
    fn enter(&mut self, target: u32, span: Span, depth: usize) {
        let node = usize::try_from(target)
            .ok()
            .and_then(|offset| Some((offset, self.maps.nodes.get(&offset)?)));
        // `checks` reports broken references, at the mapping that contains them.
        let Some((offset, node)) = node else { return self.spans.push(span) };
        match node.kind {
            NodeRole::ItsGroup(Some(its)) => self.spans.push(Span { end: End::Its(its), ..span }),
            NodeRole::Redistributors => self.spans.push(Span { end: End::Redistributors, ..span }),
            NodeRole::ItsGroup(None) => {
                let origin = origin(Signature::IORT, offset, "number of ITSes");
                self.findings.add(Rule::IortReference, origin, "the group has no ITS");
                self.spans.push(span);
            }
            NodeRole::Iommu if depth < MAX_DEPTH => {
                let span = Span { iommu: span.iommu.or(Some(offset)), ..span };
                for mapping in node.mappings.iter().filter(|mapping| !mapping.is_single) {
                    self.step(*mapping, span, depth);
                }
            }
            // A node that refers to itself has already been reported.
            NodeRole::Iommu if self.findings.has(Rule::IortReference) => {}
            NodeRole::Iommu => {
                let message = format!("the path passes more than {MAX_DEPTH} IOMMUs");
                self.findings.add(Rule::IortReference, self.origin.clone(), message);
            }
            NodeRole::Other => self.spans.push(span),
        }
    }

    /// Follows the part of `span` that `mapping` covers.
    fn step(&mut self, mapping: IdMapping, span: Span, depth: usize) {
        let Some(left) = self.maps.steps.get().checked_sub(1) else {
            let message = "there are too many ID mappings to follow";
            return self.findings.add(Rule::IortReference, self.origin.clone(), message);
        };
        self.maps.steps.set(left);
        // Neither range wraps, because `passing` has truncated the mappings.
        let first = span.device.max(mapping.input);
        let last = span
            .device
            .saturating_add(span.more)
            .min(mapping.input.saturating_add(mapping.id_count));
        let Some(more) = last.checked_sub(first) else { return };
        let part = Span {
            requester: span.requester.saturating_add(first - span.device),
            more,
            device: mapping.output.saturating_add(first - mapping.input),
            ..span
        };
        self.enter(mapping.target, part, depth + 1);
    }
}

/// Returns the mappings that `node` applies to messages passing through it. Each mapping is
/// truncated so that its range does not wrap and does not contain the first ID of a later mapping.
fn passing(node: IortNode<'_>, findings: &mut FindingList) -> Vec<IdMapping> {
    let own = node.own_mapping();
    let all = node.mappings().enumerate().filter(|&(index, _)| Some(index) != own);
    let mut mappings: Vec<IdMapping> = all.map(|(_, mapping)| bounded(mapping, findings)).collect();
    let begins = mappings.iter().enumerate().filter(|(_, mapping)| !mapping.is_single);
    let begins: BTreeMap<u32, usize> =
        begins.map(|(index, mapping)| (mapping.input, index)).collect();
    for (index, mapping) in mappings.iter_mut().enumerate() {
        let Some(fewer) = mapping.id_count.checked_sub(1).filter(|_| !mapping.is_single) else {
            continue;
        };
        let last = mapping.input.saturating_add(mapping.id_count);
        if begins.get(&last).is_some_and(|&later| later > index) {
            let message =
                format!("ID {last:#x} is also the first of another mapping, which gets it");
            findings.add(Rule::IdCount, mapping.origin(), message);
            mapping.id_count = fewer;
        }
    }
    mappings
}

/// Returns `mapping`, truncated to the IDs that fit into 32 bits.
fn bounded(mapping: IdMapping, findings: &mut FindingList) -> IdMapping {
    let most = u32::MAX - mapping.input.max(mapping.output);
    if mapping.is_single || mapping.id_count <= most {
        return mapping;
    }
    let (input, output) = (mapping.input, mapping.output);
    let message =
        format!("{:#x} more IDs after input {input:#x} or output {output:#x}", mapping.id_count);
    findings.add(Rule::MapRange, mapping.origin(), message);
    IdMapping { id_count: most, ..mapping }
}
