//! Reads CPUs from the MADT's GICC structures.

use super::madt::{Gicc, MadtContents, MadtStructure};
use super::places::{in_madt, madt_id};
use crate::description::CpuNode;
use crate::finding::Rule;
use crate::finding_list::FindingList;
use crate::origin::Fact;
use crate::status::Status;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::vec::Vec;
use gic_arch::Affinity;

/// Mask of the affinity fields Aff3 and Aff2–0 in `MPIDR_EL1`.
const AFFINITY_BITS: u64 = 0xff_00ff_ffff;

pub(super) fn giccs(madt: &[MadtStructure]) -> impl Iterator<Item = (usize, Gicc)> {
    madt.iter().filter_map(|structure| match structure.contents {
        MadtContents::Gicc(gicc) => Some((structure.offset, gicc)),
        _ => None,
    })
}

/// Reads the CPUs. A CPU that is absent at boot and may be brought online later counts as disabled.
pub(super) fn read(madt: &[MadtStructure], findings: &mut FindingList) -> Vec<CpuNode> {
    let mut known = BTreeSet::new();
    let mut cpus = Vec::new();
    for (offset, gicc) in giccs(madt) {
        let mpidr_at = |item| in_madt(offset, item);
        let Some(mpidr) = gicc.mpidr else {
            let message = "a GICC of ACPI 5.0 does not state its CPU's affinity";
            findings.add(Rule::MissingProperty, mpidr_at("MPIDR"), message);
            continue;
        };
        if mpidr & !AFFINITY_BITS != 0 {
            let message = format!("{mpidr:#x} is not an affinity of MPIDR_EL1");
            findings.add(Rule::MalformedProperty, mpidr_at("MPIDR"), message);
            continue;
        }
        let affinity = Affinity::from_mpidr(mpidr);
        if !known.insert(affinity) {
            let message = format!("an earlier CPU also has affinity {affinity}");
            findings.add(Rule::DuplicateAffinity, mpidr_at("MPIDR"), message);
            continue;
        }
        let status = if gicc.is_enabled() { Status::Enabled } else { Status::Disabled };
        cpus.push(CpuNode {
            id: madt_id("GICC", gicc.uid),
            affinity: Fact::new(affinity, mpidr_at("MPIDR")),
            status: Fact::new(status, mpidr_at("flags")),
        });
    }
    cpus
}
