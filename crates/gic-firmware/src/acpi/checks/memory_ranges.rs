//! Checks the reserved memory ranges of the IORT, which devices access through an SMMU before an
//! operating system has mapped anything (DEN 0049E §3.1.1.5).

use super::Checks;
use crate::acpi::fields::rmr;
use crate::acpi::iort::{IortNode, NodeKind};
use crate::acpi::names::node_name;
use crate::acpi::places::origin;
use crate::acpi::table::{Fields, Signature};
use crate::finding::Rule;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of a memory range descriptor: base, length and a reserved word.
const RANGE_BYTES: usize = 20;
/// Alignment of memory ranges.
const ALIGNMENT: u64 = 0x1_0000;

const COUNT: &str = rmr::RANGES.name;

impl Checks<'_, '_> {
    pub(super) fn memory_ranges(&mut self) {
        let mut all = Vec::new();
        for node in self.nodes.iter().filter(|node| node.kind == NodeKind::Rmr) {
            let mut report = |item, message: String| {
                self.findings.add(Rule::RmrRange, node.origin(item), message);
            };
            match ranges(*node) {
                Ok(ranges) => {
                    for (index, (base, length)) in ranges.into_iter().enumerate() {
                        match wrong(base, length) {
                            Some(reason) => {
                                report(COUNT, format!("memory range {index}, {reason}"));
                            }
                            None => all.push((base, length, node.offset)),
                        }
                    }
                }
                Err((item, message)) => report(item, message),
            }
            self.targets(*node);
        }
        self.overlaps(all);
    }

    /// Reports a node without mappings, and mappings whose target is not an SMMU.
    fn targets(&mut self, node: IortNode<'_>) {
        if node.mappings().next().is_none() {
            let message = "without an ID mapping, the memory is reserved for no StreamID";
            let place = node.origin("number of ID mappings");
            return self.findings.add(Rule::RmrTarget, place, message);
        }
        for mapping in node.mappings() {
            // `mappings` reports references that do not resolve, for all types of nodes.
            let target = self.by_offset.at(mapping.target);
            if let Some(target) = target.filter(|target| !target.kind.is_smmu()) {
                let message = format!(
                    "the mapping leads to {}, but StreamIDs are those of an SMMU",
                    node_name(target)
                );
                self.findings.add(Rule::RmrTarget, mapping.origin(), message);
            }
        }
    }

    /// Reports ranges of different nodes that overlap.
    fn overlaps(&mut self, mut all: Vec<(u64, u64, usize)>) {
        all.sort_unstable();
        let mut furthest: Option<(u64, u64, usize)> = None;
        for (base, length, offset) in all {
            if let Some((other, other_length, at)) = furthest
                && base - other < other_length
                && (base, length) != (other, other_length)
            {
                let message = format!(
                    "{length:#x} bytes at {base:#x} overlap {other_length:#x} bytes at {other:#x} \
                     of the RMR at {at:#x}"
                );
                self.findings.add(Rule::RmrRange, origin(Signature::IORT, offset, COUNT), message);
            }
            let ends_later = |(other, other_length, _): (u64, u64, usize)| {
                other.saturating_add(other_length) >= base.saturating_add(length)
            };
            if !furthest.is_some_and(ends_later) {
                furthest = Some((base, length, offset));
            }
        }
    }
}

/// Returns the base and the length of each range of the node, or the invalid field and the reason.
fn ranges(node: IortNode<'_>) -> Result<Vec<(u64, u64)>, (&'static str, String)> {
    let (count, from): (usize, usize) = (node.get(rmr::RANGES), node.get(rmr::FIRST_RANGE));
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
    let limit = first_mapping.filter(|&mapping| mapping >= from).unwrap_or(node.fields.0.len());
    if end > limit {
        let room = limit.saturating_sub(from) / RANGE_BYTES;
        return Err((COUNT, format!("{count} memory ranges, but the node has room for {room}")));
    }
    let array = node.fields.slice(from, length).unwrap_or_default();
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
