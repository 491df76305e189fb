//! Checks the GICC structures.

use super::gic::{ADDRESS_BITS, has_redistributors};
use super::raw_tables::RawTables;
use crate::acpi::cpus::giccs;
use crate::acpi::fields::{Field, gicc};
use crate::acpi::madt::{Gicc, MadtContents, MadtStructure};
use crate::acpi::places::in_madt;
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
    (gicc::MAINTENANCE_GSIV, NO_KVM),
    (gicc::GICV, NO_KVM),
    (gicc::SPE_GSIV, "Linux then ignores SPE"),
    (gicc::TRBE_GSIV, "Linux then ignores TRBE"),
];
const NO_KVM: &str = "KVM then refuses to use the GIC";
/// Flag of a GICC whose maintenance interrupt is edge-triggered.
const EDGE: u64 = 1 << 2;

pub(super) fn check(madt: &[MadtStructure], raw: RawTables<'_>, findings: &mut FindingList) {
    uids(madt, findings);
    enabled(madt, findings);
    interfaces(madt, raw, findings);
    redistributors(madt, findings);
    let usable = || giccs(madt).filter(|(_, gicc)| gicc.is_enabled() || gicc.is_online_capable());
    for (field, consequence) in SHARED {
        let value = |offset| field.spelled(raw.at(offset));
        equal(usable(), field.name, value, consequence, findings);
    }
    let trigger = |offset| {
        let is_edge = gicc::FLAGS.has(raw.at(offset), EDGE)?;
        let trigger = if is_edge { "edge" } else { "level" };
        Some(format!("({trigger}-triggered maintenance interrupt)"))
    };
    equal(usable(), gicc::FLAGS.name, trigger, NO_KVM, findings);
    if !has_redistributors(madt) {
        // Linux compares the interfaces of all GICCs, also of those that are disabled.
        let value = |offset| gicc::BASE.spelled(raw.at(offset));
        let consequence = "Linux then refuses the GIC, whose interfaces are banked";
        equal(giccs(madt), gicc::BASE.name, value, consequence, findings);
    }
}

/// Reports a GICv3 whose maintenance interrupt no CPU states.
pub(super) fn maintenance(madt: &[MadtStructure], raw: RawTables<'_>, findings: &mut FindingList) {
    let gsiv = |offset| gicc::MAINTENANCE_GSIV.read::<u32>(raw.at(offset));
    let has_one = |(offset, _): (usize, Gicc)| gsiv(offset).is_some_and(|gsiv| gsiv != 0);
    if let Some((first, _)) = giccs(madt).next()
        && !giccs(madt).any(has_one)
    {
        let place = in_madt(first, gicc::MAINTENANCE_GSIV.name);
        findings.add(Rule::MissingMaintenanceInterrupt, place, crate::gic::NO_MAINTENANCE);
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

/// Reports the first CPU whose value differs from the first CPU's.
fn equal(
    mut cpus: impl Iterator<Item = (usize, Gicc)>,
    name: &'static str,
    value: impl Fn(usize) -> Option<String>,
    consequence: &str,
    findings: &mut FindingList,
) {
    let Some((first, of)) = cpus.next() else { return };
    let Some(stated) = value(first) else { return };
    let other = cpus.find(|(offset, _)| value(*offset).is_some_and(|other| other != stated));
    if let Some((offset, gicc)) = other {
        let message = format!(
            "{name} {} of CPU UID {} differs from {stated} of CPU UID {}; {consequence}",
            value(offset).unwrap_or_default(),
            gicc.uid,
            of.uid
        );
        findings.add(Rule::GiccMismatch, in_madt(offset, name), message);
    }
}
