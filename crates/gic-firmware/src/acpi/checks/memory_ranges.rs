//! Checks the reserved memory ranges of the IORT, which devices access through an SMMU before an
//! operating system has mapped anything (DEN 0049E §3.1.1.5).

use super::raw_tables::RawTables;
use crate::acpi::fields::rmr;
use crate::acpi::iort::{IortContents, IortNode};
use crate::acpi::names::{NodesByOffset, node_name};
use crate::acpi::places::origin;
use crate::acpi::table::{Fields, Signature};
use crate::finding::Rule;
use crate::finding_list::FindingList;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a memory range descriptor: base, length and a reserved word.
const RANGE_BYTES: usize = 20;
/// Alignment of memory ranges.
const ALIGNMENT: u64 = 0x1_0000;

const COUNT: &str = rmr::RANGES.name;

pub(super) fn check(nodes: &[IortNode<'_>], raw: RawTables<'_>, findings: &mut FindingList) {
    if !nodes.iter().any(|node| node.contents == IortContents::Rmr) {
        return;
    }
    let by_offset = NodesByOffset::new(nodes.iter().copied());
    let mut all = Vec::new();
    for node in nodes.iter().filter(|node| node.contents == IortContents::Rmr) {
        let report = |item, message: String, findings: &mut FindingList| {
            findings.add(Rule::RmrRange, node.origin(item), message);
        };
        match ranges(raw.node(node), *node) {
            Ok(ranges) => {
                for (index, (base, length)) in ranges.into_iter().enumerate() {
                    match wrong(base, length) {
                        Some(reason) => {
                            let message = format!("memory range {index}, {reason}");
                            report(COUNT, message, findings);
                        }
                        None => all.push((base, length, node.offset)),
                    }
                }
            }
            Err((item, message)) => report(item, message, findings),
        }
        targets(*node, &by_offset, findings);
    }
    overlaps(all, findings);
}

/// Returns the base and the length of each range of the node, or the invalid field and the reason.
fn ranges(
    bytes: Fields<'_>,
    node: IortNode<'_>,
) -> Result<Vec<(u64, u64)>, (&'static str, String)> {
    let count = rmr::RANGES.read(bytes).unwrap_or(0usize);
    let from = rmr::FIRST_RANGE.read(bytes).unwrap_or(0usize);
    if count == 0 {
        return Err((COUNT, String::from("the node reserves no memory range")));
    }
    if from < rmr::LAYOUT.first.into() {
        let message = format!("memory ranges cannot start at byte {from} of the node");
        return Err((rmr::FIRST_RANGE.name, message));
    }
    let length = count.saturating_mul(RANGE_BYTES);
    let end = from.saturating_add(length);
    let first_mapping = node.mappings().next().map(|mapping| mapping.offset - node.offset);
    let limit = first_mapping.filter(|&mapping| mapping >= from).unwrap_or(bytes.0.len());
    if end > limit {
        let room = limit.saturating_sub(from) / RANGE_BYTES;
        return Err((COUNT, format!("{count} memory ranges, but the node has room for {room}")));
    }
    let array = bytes.slice(from, length).unwrap_or_default();
    let range = |bytes| Some((Fields(bytes).u64(0)?, Fields(bytes).u64(8)?));
    Ok(array.chunks_exact(RANGE_BYTES).filter_map(range).collect())
}

/// Returns the reason why a range cannot be reserved, if any.
fn wrong(base: u64, length: u64) -> Option<String> {
    if length == 0 {
        return Some(format!("base {base:#x}, is empty"));
    }
    if !base.is_multiple_of(ALIGNMENT) || !length.is_multiple_of(ALIGNMENT) {
        return Some(format!(
            "base {base:#x}, length {length:#x}, is not aligned to 64 KiB: Linux reserves another \
             range"
        ));
    }
    let fits = base.checked_add(length - 1).is_some();
    (!fits).then(|| format!("base {base:#x}, length {length:#x}, reaches past the address space"))
}

/// Reports a node without mappings, and mappings whose target is not an SMMU.
fn targets(node: IortNode<'_>, nodes: &NodesByOffset<'_>, findings: &mut FindingList) {
    if node.mappings().next().is_none() {
        let message = "without an ID mapping, the memory is reserved for no StreamID";
        return findings.add(Rule::RmrTarget, node.origin("number of ID mappings"), message);
    }
    for mapping in node.mappings() {
        let target = nodes.at(mapping.target);
        let is_smmu = |node: IortNode<'_>| {
            matches!(node.contents, IortContents::SmmuV2(_) | IortContents::SmmuV3(_))
        };
        // `mappings` reports references that do not resolve, for all types of nodes.
        if let Some(target) = target.filter(|target| !is_smmu(*target)) {
            let message = format!(
                "the mapping leads to {}, but StreamIDs are those of an SMMU",
                node_name(target)
            );
            findings.add(Rule::RmrTarget, mapping.origin(), message);
        }
    }
}

/// Reports ranges of different nodes that overlap.
fn overlaps(mut all: Vec<(u64, u64, usize)>, findings: &mut FindingList) {
    all.sort_unstable();
    let mut furthest: Option<(u64, u64, usize)> = None;
    for (base, length, offset) in all {
        if let Some((other, other_length, at)) = furthest
            && base - other < other_length
            && (base, length) != (other, other_length)
        {
            let message = format!(
                "{length:#x} bytes at {base:#x} overlap {other_length:#x} bytes at {other:#x} of \
                 the RMR at {at:#x}"
            );
            findings.add(Rule::RmrRange, origin(Signature::IORT, offset, COUNT), message);
        }
        let ends_later = |(other, other_length, _): (u64, u64, usize)| {
            other.saturating_add(other_length) >= base.saturating_add(length)
        };
        if !furthest.is_some_and(ends_later) {
            furthest = Some((base, length, offset));
        }
    }
}
