//! Checks that SMMUs map the IDs which other nodes send through them, and compares the MCFG with
//! the root complexes of the IORT.

use super::Checks;
use crate::acpi::fields::{its, root_complex};
use crate::acpi::iort::{IdMapping, IortNode, NodeKind};
use crate::acpi::madt::of_kind;
use crate::acpi::mcfg::{Allocation, Mcfg};
use crate::acpi::names::node_name;
use crate::acpi::table::{Signature, origin};
use crate::acpi::table_set::TableSet;
use crate::finding::Rule;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// An SMMU with the ranges of IDs that it maps, merged and in ascending order.
struct Smmu<'a> {
    node: IortNode<'a>,
    mapped: Vec<(u64, u64)>,
}

impl Checks<'_, '_> {
    /// Reports nodes whose messages pass an SMMU that does not map them. Skips machines without an
    /// ITS, because they do not use the mappings of an SMMU.
    pub(super) fn streams(&mut self) {
        if of_kind(self.madt, its::KIND).next().is_none() {
            return;
        }
        let smmus: BTreeMap<usize, Smmu<'_>> =
            self.nodes.iter().filter_map(|node| Some((node.offset, smmu(*node)?))).collect();
        let buses = requesters(self.tables);
        let mut reported = BTreeSet::new();
        for node in self.nodes {
            let own = node.own_mapping();
            let limits = match node.kind {
                NodeKind::RootComplex => buses.get(&node.get(root_complex::SEGMENT)).copied(),
                NodeKind::NamedComponent => {
                    self.component(*node, &smmus);
                    continue;
                }
                NodeKind::SmmuV2 | NodeKind::SmmuV3 => None,
                NodeKind::Pmcg if own.is_some() => None,
                _ => continue,
            };
            for mapping in node.mappings() {
                let is_new = |smmu: &&Smmu<'_>| {
                    smmu.node.offset != node.offset && !reported.contains(&smmu.node.offset)
                };
                let Some(smmu) = passed(mapping, &smmus).filter(is_new) else { continue };
                let Some((first, last)) = outputs(mapping, limits) else { continue };
                if smmu.mapped.is_empty() {
                    self.without_its(*node, smmu.node);
                    reported.insert(smmu.node.offset);
                } else if let Some(missing) = first_missing(&smmu.mapped, first, last) {
                    self.partly(*node, (first, last), smmu, missing);
                    reported.insert(smmu.node.offset);
                }
            }
        }
    }

    /// Reports a named component that cannot send messages, because all of its mappings end at
    /// SMMUs. Many components have only wires. As in Linux, the first mapping that leads to an ITS
    /// is used.
    fn component(&mut self, node: IortNode<'_>, smmus: &BTreeMap<usize, Smmu<'_>>) {
        let ends = |mapping: IdMapping| {
            let (first, last) = outputs(mapping, None)?;
            let smmu = passed(mapping, smmus)?;
            first_missing(&smmu.mapped, first, last).map(|missing| (mapping, smmu, missing))
        };
        let ends: Vec<_> = node.mappings().map(ends).collect();
        if let Some(Some((mapping, smmu, missing))) = ends.first()
            && ends.iter().all(Option::is_some)
        {
            let (name, to) = (node_name(node), node_name(smmu.node));
            let message = format!("{to} does not map ID {missing:#x} of {name} to an ITS group");
            self.findings.add(Rule::ComponentWithoutIts, mapping.origin(), message);
        }
    }

    fn without_its(&mut self, sender: IortNode<'_>, smmu: IortNode<'_>) {
        let message = format!(
            "{} sends through {}, which has no ID mapping to an ITS group: nothing behind it can \
             signal by message",
            node_name(sender),
            node_name(smmu)
        );
        self.findings.add(Rule::SmmuWithoutIts, smmu.origin("number of ID mappings"), message);
    }

    /// Reports IDs that the SMMU does not map. The finding refers to the SMMU's mapping that
    /// precedes them.
    fn partly(
        &mut self,
        sender: IortNode<'_>,
        (first, last): (u64, u64),
        smmu: &Smmu<'_>,
        missing: u64,
    ) {
        let before = |mapping: &IdMapping| {
            !mapping.is_single && u64::from(mapping.input) + u64::from(mapping.id_count) < missing
        };
        let own = smmu.node.own_mapping();
        let passing = smmu.node.mappings().enumerate().filter(|(index, _)| Some(*index) != own);
        let near = passing.map(|(_, mapping)| mapping).filter(before).max_by_key(|one| one.input);
        let near = near.or_else(|| smmu.node.mappings().find(|mapping| !mapping.is_single));
        let message = format!(
            "{} sends IDs {first:#x} to {last:#x} through {}, which does not map {missing:#x}: its \
             messages reach no ITS",
            node_name(sender),
            node_name(smmu.node)
        );
        let offset = near.map_or(smmu.node.offset, |mapping| mapping.offset);
        self.findings.add(
            Rule::UnmappedStream,
            origin(Signature::IORT, offset, "ID mapping"),
            message,
        );
    }

    pub(super) fn segments(&mut self) {
        let all = self.tables.mcfg.into_iter().flat_map(Mcfg::allocations);
        let all: Vec<Allocation> = all.filter_map(Result::ok).collect();
        for allocation in &all {
            let place = origin(Signature::MCFG, allocation.offset, "base address");
            if !allocation.is_used() {
                let message =
                    "the allocation consists of zeros: it describes no configuration space";
                self.findings.add(Rule::UnusedField, place, message);
                continue;
            }
            let last = u64::from(allocation.last_bus) + 1;
            if allocation.base.checked_add(last * BUS_BYTES - 1).is_none() {
                continue; // The reader reports these.
            }
            self.address("configuration space", allocation.base, place);
        }
        self.unknown_segments(&all);
    }

    /// Reports root complexes of segments that do not exist, if another segment has no root
    /// complex.
    ///
    /// A root complex without an allocation is not a mistake by itself, because the namespace can
    /// state the address of its configuration space (`_CBA`).
    fn unknown_segments(&mut self, all: &[Allocation]) {
        let used = all.iter().filter(|one| one.is_used());
        let known: BTreeSet<u32> = used.map(|one| u32::from(one.segment)).collect();
        let complexes = self.nodes.iter().filter(|node| node.kind == NodeKind::RootComplex);
        let complexes = complexes.map(|node| (node, node.get(root_complex::SEGMENT)));
        let mapped: BTreeSet<u32> = complexes.clone().map(|(_, segment)| segment).collect();
        let missing: Vec<String> =
            known.difference(&mapped).map(|segment| format!("{segment:#x}")).collect();
        let mut seen = BTreeSet::new();
        for (node, segment) in complexes {
            let is_beyond = u16::try_from(segment).is_err();
            let is_unpaired = !known.contains(&segment) || !seen.insert(segment);
            if is_beyond || (is_unpaired && !missing.is_empty()) {
                let message = match (known.contains(&segment), missing.first()) {
                    (_, None) => format!("{segment:#x} is no segment: they have 16 bits"),
                    (false, Some(first)) => format!(
                        "the MCFG has no segment {segment:#x}, and its segment {first} has no \
                         root complex"
                    ),
                    (true, Some(first)) => format!(
                        "segment {segment:#x} already has a root complex, and segment {first} of \
                         the MCFG has none"
                    ),
                };
                let place = node.origin(root_complex::SEGMENT.name);
                self.findings.add(Rule::UnknownSegment, place, message);
            }
        }
    }
}

/// Returns the SMMU that a mapping refers to.
fn passed<'s, 'a>(
    mapping: IdMapping,
    smmus: &'s BTreeMap<usize, Smmu<'a>>,
) -> Option<&'s Smmu<'a>> {
    smmus.get(&usize::try_from(mapping.target).ok()?)
}

/// Returns the node with its ranges if it is an SMMU.
fn smmu(node: IortNode<'_>) -> Option<Smmu<'_>> {
    let own = node.own_mapping();
    let passing = node
        .mappings()
        .enumerate()
        .filter(|(index, mapping)| Some(*index) != own && !mapping.is_single);
    let mut ranges: Vec<(u64, u64)> = passing
        .map(|(_, mapping)| {
            let first = u64::from(mapping.input);
            (first, first + u64::from(mapping.id_count))
        })
        .collect();
    ranges.sort_unstable();
    let mut mapped: Vec<(u64, u64)> = Vec::new();
    for (first, last) in ranges {
        match mapped.last_mut().filter(|before| first <= before.1 + 1) {
            Some(before) => before.1 = before.1.max(last),
            None => mapped.push((first, last)),
        }
    }
    node.kind.is_smmu().then_some(Smmu { node, mapped })
}

/// Returns the first and the last requester ID of each segment of the MCFG.
fn requesters(tables: &TableSet<'_>) -> BTreeMap<u32, (u64, u64)> {
    let mut buses: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    for one in tables.mcfg.into_iter().flat_map(Mcfg::used) {
        let (first, last) = (u64::from(one.first_bus) << 8, u64::from(one.last_bus) << 8 | 0xff);
        let known = buses.entry(one.segment.into()).or_insert((first, last));
        *known = (known.0.min(first), known.1.max(last));
    }
    buses
}

/// Returns the first and the last ID that a mapping assigns to requesters within `limits`.
fn outputs(mapping: IdMapping, limits: Option<(u64, u64)>) -> Option<(u64, u64)> {
    let output = u64::from(mapping.output);
    if mapping.is_single {
        return Some((output, output));
    }
    let (low, high) = limits.unwrap_or((0, u64::MAX));
    let input = u64::from(mapping.input);
    let first = input.max(low);
    let last = (input + u64::from(mapping.id_count)).min(high);
    (first <= last).then(|| (output + (first - input), output + (last - input)))
}

/// Returns the first ID from `first` to `last` that is in none of the `mapped` ranges.
fn first_missing(mapped: &[(u64, u64)], first: u64, last: u64) -> Option<u64> {
    let after = mapped.partition_point(|(begin, _)| *begin <= first);
    let around = after.checked_sub(1).and_then(|index| mapped.get(index));
    let missing = match around {
        Some((_, end)) if *end >= first => end + 1,
        _ => first,
    };
    (missing <= last).then_some(missing)
}

/// Bytes of configuration space per bus.
const BUS_BYTES: u64 = 1 << 20;
