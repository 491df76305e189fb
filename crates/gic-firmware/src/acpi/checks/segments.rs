//! Compares the MCFG with the root complexes of the IORT.

use super::gic::address;
use crate::acpi::iort::{IortContents, IortNode};
use crate::acpi::mcfg::{Allocation, Mcfg};
use crate::acpi::places::origin;
use crate::acpi::table::Signature;
use crate::acpi::table_set::TableSet;
use crate::finding::Rule;
use crate::finding_list::FindingList;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of configuration space per bus.
const BUS_BYTES: u64 = 1 << 20;

pub(super) fn check(tables: &TableSet<'_>, nodes: &[IortNode<'_>], findings: &mut FindingList) {
    let all: Vec<Allocation> =
        tables.mcfg.into_iter().flat_map(Mcfg::allocations).filter_map(Result::ok).collect();
    for allocation in &all {
        if !allocation.is_used() {
            let place = origin(Signature::MCFG, allocation.offset, "base address");
            let message = "the allocation consists of zeros: it describes no configuration space";
            findings.add(Rule::UnusedField, place, message);
            continue;
        }
        let last = u64::from(allocation.last_bus) + 1;
        if allocation.base.checked_add(last * BUS_BYTES - 1).is_none() {
            continue; // The reader reports these.
        }
        let place = origin(Signature::MCFG, allocation.offset, "base address");
        address("configuration space", allocation.base, place, findings);
    }
    unknown(&all, nodes, findings);
}

/// Reports root complexes of segments that do not exist, if another segment has no root complex.
///
/// A root complex without an allocation is not a mistake by itself, because the namespace can state
/// the address of its configuration space (`_CBA`).
fn unknown(all: &[Allocation], nodes: &[IortNode<'_>], findings: &mut FindingList) {
    let used = all.iter().filter(|one| one.is_used());
    let known: BTreeSet<u32> = used.map(|one| u32::from(one.segment)).collect();
    let complexes = || {
        nodes.iter().filter_map(|node| match node.contents {
            IortContents::RootComplex(complex) => Some((node.offset, complex.segment)),
            _ => None,
        })
    };
    let mapped: BTreeSet<u32> = complexes().map(|(_, segment)| segment).collect();
    let missing: Vec<String> =
        known.difference(&mapped).map(|segment| format!("{segment:#x}")).collect();
    let mut seen = BTreeSet::new();
    for (offset, segment) in complexes() {
        let is_beyond = u16::try_from(segment).is_err();
        let is_unpaired = !known.contains(&segment) || !seen.insert(segment);
        if is_beyond || (is_unpaired && !missing.is_empty()) {
            let message = match (known.contains(&segment), missing.first()) {
                (_, None) => format!("{segment:#x} is no segment: they have 16 bits"),
                (false, Some(first)) => format!(
                    "the MCFG has no segment {segment:#x}, and its segment {first} has no root \
                     complex"
                ),
                (true, Some(first)) => format!(
                    "segment {segment:#x} already has a root complex, and segment {first} of the \
                     MCFG has none"
                ),
            };
            let place = origin(Signature::IORT, offset, "PCI segment number");
            findings.add(Rule::UnknownSegment, place, message);
        }
    }
}
