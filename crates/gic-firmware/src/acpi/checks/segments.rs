//! Compares the MCFG with the root complexes of the IORT.

use super::Checks;
use crate::acpi::fields::root_complex;
use crate::acpi::iort::NodeKind;
use crate::acpi::mcfg::{Allocation, Mcfg};
use crate::acpi::places::origin;
use crate::acpi::table::Signature;
use crate::finding::Rule;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Bytes of configuration space per bus.
const BUS_BYTES: u64 = 1 << 20;

impl Checks<'_, '_> {
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
