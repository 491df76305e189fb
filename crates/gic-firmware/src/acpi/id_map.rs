//! ID mappings, composed from the requester to the node that takes its messages.
//!
//! As Linux has it, the first mapping that holds an ID counts. The exception is an ID at the end of
//! a range: it belongs to a later range that begins with it. Firmware that states the number of IDs
//! instead of the number minus one needs that.

use super::iort::{IdMapping, IortContents, IortNode};
use super::places::origin;
use super::table::Signature;
use crate::finding::Rule;
use crate::finding_list::FindingList;
use crate::origin::Origin;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::vec::Vec;
use core::cell::Cell;

/// Nodes that a message may pass; the specification has at most two.
const MAX_DEPTH: usize = 8;
/// Mappings that may be looked at in all. Real tables need a few hundred steps.
const STEPS: u32 = 1 << 18;

/// The nodes of an IORT by their offsets.
pub(super) struct IdMaps {
    nodes: BTreeMap<usize, Node>,
    steps: Cell<u32>,
}

struct Node {
    kind: NodeRole,
    mappings: Vec<IdMapping>,
}

/// The part of a node in a message's way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum NodeRole {
    /// Its end: an ITS, by its number; `None` if the group is empty.
    ItsGroup(Option<u32>),
    /// Its end: the redistributors.
    Redistributors,
    /// An IOMMU, which maps IDs further.
    Iommu,
    /// Nothing that takes IDs.
    Other,
}

/// Consecutive requester IDs at the end of their way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Span {
    /// The first requester ID.
    pub(super) requester: u32,
    /// Their number minus one.
    pub(super) more: u32,
    /// The first one's ID at the end.
    pub(super) device: u32,
    /// The end.
    pub(super) end: End,
    /// The first IOMMU on the way, as its node's offset.
    pub(super) iommu: Option<usize>,
}

/// The end of a message's way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// The ITS with this number.
    Its(u32),
    /// The redistributors.
    Redistributors,
    /// None: the reference is broken.
    Nowhere,
}

impl IdMaps {
    pub(super) fn read<'a>(
        nodes: impl Iterator<Item = IortNode<'a>>,
        findings: &mut FindingList,
    ) -> Self {
        let nodes = nodes.map(|node| {
            let kind = match node.contents {
                IortContents::ItsGroup(group) => NodeRole::ItsGroup(group.ids().next()),
                IortContents::SmmuV2(_) | IortContents::SmmuV3(_) => NodeRole::Iommu,
                IortContents::DraftRedistributorGroup => NodeRole::Redistributors,
                _ => NodeRole::Other,
            };
            (node.offset, Node { kind, mappings: passing(node, findings) })
        });
        Self { nodes: nodes.collect(), steps: Cell::new(STEPS) }
    }

    /// The mappings of the node at `offset` for messages that pass it.
    pub(super) fn of(&self, offset: usize) -> &[IdMapping] {
        self.nodes.get(&offset).map_or(&[], |node| &node.mappings)
    }

    /// Follows the IDs that `mapping` takes to the end of their way. IDs that an IOMMU does not map
    /// are left out.
    pub(super) fn follow(&self, mapping: IdMapping, findings: &mut FindingList) -> Vec<Span> {
        let more = if mapping.is_single { 0 } else { mapping.id_count };
        let requester = if mapping.is_single { 0 } else { mapping.input };
        let start =
            Span { requester, more, device: mapping.output, end: End::Nowhere, iommu: None };
        let mut spans = Vec::new();
        Walk { maps: self, origin: mapping_origin(mapping), findings, spans: &mut spans }.enter(
            mapping.target,
            start,
            0,
        );
        spans
    }
}

pub(super) fn mapping_origin(mapping: IdMapping) -> Origin {
    origin(Signature::IORT, mapping.offset, "ID mapping")
}

struct Walk<'w> {
    maps: &'w IdMaps,
    origin: Origin,
    findings: &'w mut FindingList,
    spans: &'w mut Vec<Span>,
}

impl Walk<'_> {
    /// Enters the node at `target` with the IDs of `span`.
    fn enter(&mut self, target: u32, span: Span, depth: usize) {
        let node = usize::try_from(target)
            .ok()
            .and_then(|offset| Some((offset, self.maps.nodes.get(&offset)?)));
        let Some((offset, node)) = node else {
            let message = format!("no node is at offset {target:#x}");
            self.findings.add(Rule::IortReference, self.origin.clone(), message);
            return self.spans.push(span);
        };
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
            NodeRole::Iommu => {
                let message = format!("the way leads through more than {MAX_DEPTH} IOMMUs");
                self.findings.add(Rule::IortReference, self.origin.clone(), message);
            }
            NodeRole::Other => {
                let message = format!("the node at offset {target:#x} takes no IDs");
                self.findings.add(Rule::IortReference, self.origin.clone(), message);
                self.spans.push(span);
            }
        }
    }

    /// Maps those IDs of `span` that `mapping` holds.
    fn step(&mut self, mapping: IdMapping, span: Span, depth: usize) {
        let Some(left) = self.maps.steps.get().checked_sub(1) else {
            let message = "there are too many ID mappings to follow";
            return self.findings.add(Rule::IortReference, self.origin.clone(), message);
        };
        self.maps.steps.set(left);
        // Neither range wraps: `passing` cut it.
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

/// The mappings of `node` for messages that pass it, none of which wraps or takes another's first
/// ID.
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
                format!("ID {last:#x} is the first of another mapping, which it is left to");
            findings.add(Rule::IdCount, mapping_origin(*mapping), message);
            mapping.id_count = fewer;
        }
    }
    mappings
}

/// `mapping` without IDs beyond 32 bits.
fn bounded(mapping: IdMapping, findings: &mut FindingList) -> IdMapping {
    let most = u32::MAX - mapping.input.max(mapping.output);
    if mapping.is_single || mapping.id_count <= most {
        return mapping;
    }
    let (input, output) = (mapping.input, mapping.output);
    let message =
        format!("{:#x} more IDs after input {input:#x} or output {output:#x}", mapping.id_count);
    findings.add(Rule::MapRange, mapping_origin(mapping), message);
    IdMapping { id_count: most, ..mapping }
}
