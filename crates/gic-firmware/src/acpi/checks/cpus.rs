//! Checks the GICC structures.

use super::gic::ADDRESS_BITS;
use super::raw_tables::RawTables;
use crate::acpi::cpus::giccs;
use crate::acpi::fields::{Field, gicc, structure_head};
use crate::acpi::madt::{Gicc, MadtContents, MadtStructure};
use crate::acpi::places::in_madt;
use crate::acpi::table::Fields;
use crate::finding::Rule;
use crate::finding_list::FindingList;
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;

/// Alignment of the registers of a CPU interface (IHI 0048B §4.1).
const PAGE_BYTES: u64 = 0x1000;
/// Fields that Linux requires to be equal on all CPUs, because one handler serves all of them.
const SHARED: [(Field, &str); 4] = [
    (gicc::MAINTENANCE_GSIV, "KVM then refuses to use the GIC"),
    (gicc::GICV, "KVM then refuses to use the GIC"),
    (gicc::SPE_GSIV, "Linux then ignores SPE"),
    (gicc::TRBE_GSIV, "Linux then ignores TRBE"),
];

pub(super) fn check(madt: &[MadtStructure], raw: RawTables<'_>, findings: &mut FindingList) {
    uids(madt, findings);
    enabled(madt, findings);
    interfaces(madt, raw, findings);
    redistributors(madt, findings);
    for (field, consequence) in SHARED {
        equal(madt, raw, field, consequence, findings);
    }
}

fn uids(madt: &[MadtStructure], findings: &mut FindingList) {
    let mut known = BTreeMap::new();
    for (offset, gicc) in giccs(madt) {
        match known.entry(gicc.uid) {
            Entry::Vacant(entry) => _ = entry.insert(offset),
            Entry::Occupied(first) => {
                let message = format!(
                    "the CPU at {:#x} also has UID {}: the namespace, PPTT and SRAT cannot tell \
                     them apart",
                    first.get(),
                    gicc.uid
                );
                findings.add(Rule::DuplicateId, in_madt(offset, gicc::UID.name), message);
            }
        }
    }
}

/// Reports contradictory flags, and a machine that cannot boot because its boot CPU is disabled.
fn enabled(madt: &[MadtStructure], findings: &mut FindingList) {
    let flags = |offset| in_madt(offset, gicc::FLAGS.name);
    if let Some((first, _)) = giccs(madt).next()
        && !giccs(madt).any(|(_, gicc)| gicc.is_enabled())
    {
        let count = giccs(madt).count();
        let message = match count {
            1 => String::from("the flags of the only GICC do not enable its CPU"),
            _ => format!("the flags of none of the {count} GICCs enable a CPU"),
        };
        findings.add(Rule::NoUsableCpu, flags(first), message);
    } else if let Some((first, gicc)) = giccs(madt).next()
        && !gicc.is_enabled()
    {
        let message = format!(
            "the first GICC, which is that of the CPU that boots, has flags {:#x}: it is disabled",
            gicc.flags
        );
        findings.add(Rule::NoUsableCpu, flags(first), message);
    }
    let both = |(_, gicc): &(usize, Gicc)| gicc.is_enabled() && gicc.is_online_capable();
    if let Some((offset, gicc)) = giccs(madt).find(both) {
        let message = format!(
            "flags {:#x} of {} CPUs: a CPU is enabled or online capable, not both",
            gicc.flags,
            giccs(madt).filter(both).count()
        );
        findings.add(Rule::MalformedProperty, flags(offset), message);
    }
}

/// Reports CPU interface addresses at which no registers can be.
fn interfaces(madt: &[MadtStructure], raw: RawTables<'_>, findings: &mut FindingList) {
    for field in [gicc::BASE, gicc::GICV, gicc::GICH] {
        let wrong = madt.iter().find_map(|structure| {
            matches!(structure.contents, MadtContents::Gicc(_)).then_some(())?;
            let base: u64 = field.read(raw.structure(structure))?;
            (!base.is_multiple_of(PAGE_BYTES) || base >> ADDRESS_BITS != 0)
                .then_some((structure, base))
        });
        if let Some((structure, base)) = wrong {
            let message = format!(
                "{} {base:#x} of a CPU is no address of registers; 0 stands for none",
                field.name
            );
            findings.add(Rule::MalformedProperty, in_madt(structure.offset, field.name), message);
        }
    }
}

/// Reports CPUs that share a redistributor.
fn redistributors(madt: &[MadtStructure], findings: &mut FindingList) {
    let mut known = BTreeSet::new();
    for (offset, gicc) in giccs(madt) {
        let Some(base) = gicc.redistributor.filter(|&base| base != 0) else { continue };
        if !known.insert(base) {
            let message = format!("an earlier CPU also has its redistributor at {base:#x}");
            let place = in_madt(offset, gicc::REDISTRIBUTOR.name);
            findings.add(Rule::GiccRedistributor, place, message);
        }
    }
}

/// Reports the first enabled CPU whose `field` differs from the first enabled CPU's.
fn equal(
    madt: &[MadtStructure],
    raw: RawTables<'_>,
    field: Field,
    consequence: &str,
    findings: &mut FindingList,
) {
    let value = |offset: usize| {
        let rest = Fields(raw.madt.get(offset..)?);
        field.spelled(Fields(rest.slice(0, structure_head::LENGTH.read(rest)?)?))
    };
    let mut usable = giccs(madt).filter(|(_, gicc)| gicc.is_enabled());
    let Some((first, of)) = usable.next() else { return };
    let Some(stated) = value(first) else { return };
    let other = usable.find(|(offset, _)| value(*offset).is_some_and(|other| other != stated));
    if let Some((offset, gicc)) = other {
        let message = format!(
            "{} {} of CPU UID {} differs from {stated} of CPU UID {}; {consequence}",
            field.name,
            value(offset).unwrap_or_default(),
            gicc.uid,
            of.uid
        );
        findings.add(Rule::GiccMismatch, in_madt(offset, field.name), message);
    }
}
