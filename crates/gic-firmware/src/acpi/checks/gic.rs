//! Checks the distributor, redistributors, ITSes and MSI frames of the MADT.

use super::raw_tables::RawTables;
use crate::acpi::fields::gicd;
use crate::acpi::madt::{Gicd, MadtContents, MadtStructure, MsiFrame};
use crate::acpi::places::in_madt;
use crate::finding::Rule;
use crate::finding_list::FindingList;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use gic_arch::{IntId, IntIdClass};

/// Maximum number of bits of a physical address (Armv9, FEAT_D128).
pub(super) const ADDRESS_BITS: u32 = 56;

pub(super) fn check(madt: &[MadtStructure], raw: RawTables<'_>, findings: &mut FindingList) {
    let mut frames = BTreeSet::new();
    for structure in madt {
        let (offset, place) = (structure.offset, |item| in_madt(structure.offset, item));
        match structure.contents {
            MadtContents::Gicd(gicd) => {
                address("GICD", gicd.base, place("physical base address"), findings);
                version(madt, offset, gicd, findings);
                let field = gicd::SYSTEM_VECTOR_BASE;
                let vector: u32 = field.read(raw.structure(structure)).unwrap_or_default();
                if vector != 0 {
                    let message = format!("{vector}, but GSIVs of a GIC are INTIDs, from 0 on");
                    findings.add(Rule::MalformedProperty, place(field.name), message);
                }
            }
            MadtContents::Gicr(gicr) => {
                address("GICR", gicr.base, place("discovery range base address"), findings);
            }
            MadtContents::Its(its) => {
                address("ITS", its.base, place("physical base address"), findings);
            }
            MadtContents::MsiFrame(frame) => {
                address("MSI frame", frame.base, place("physical base address"), findings);
                spis(frame, offset, findings);
                if !frames.insert(frame.id) {
                    let message = format!("an earlier MSI frame also has number {}", frame.id);
                    findings.add(Rule::DuplicateId, place("GIC MSI frame ID"), message);
                }
            }
            _ => {}
        }
    }
}

/// Reports an impossible address: zero, or wider than a physical address.
pub(super) fn address(
    name: &str,
    base: u64,
    place: crate::origin::Origin,
    findings: &mut FindingList,
) {
    let message = if base == 0 {
        format!("the {name} is at address 0: the field was not filled in")
    } else if base >> ADDRESS_BITS != 0 {
        format!("{base:#x} has more than {ADDRESS_BITS} bits: no {name} can be there")
    } else {
        return;
    };
    findings.add(Rule::MalformedProperty, place, message);
}

pub(super) fn is_gicd(structure: &MadtStructure) -> bool {
    matches!(structure.contents, MadtContents::Gicd(_))
}

/// Returns `true` if the MADT describes redistributors, which only a GICv3 or later has.
pub(super) fn has_redistributors(madt: &[MadtStructure]) -> bool {
    madt.iter().any(|structure| match structure.contents {
        MadtContents::Gicr(_) => true,
        MadtContents::Gicc(cpu) => cpu.redistributor.is_some_and(|base| base != 0),
        _ => false,
    })
}

/// Compares the distributor's version with the other structures of the MADT. Version 0 leaves the
/// version to the hardware: Linux then looks for redistributors, and otherwise for CPU interfaces.
fn version(madt: &[MadtStructure], offset: usize, distributor: Gicd, findings: &mut FindingList) {
    let has = |test: fn(&MadtContents) -> bool| {
        madt.iter().find(|structure| test(&structure.contents)).map(|structure| structure.offset)
    };
    let region = has(|contents| matches!(contents, MadtContents::Gicr(_)));
    let its = has(|contents| matches!(contents, MadtContents::Its(_)));
    let in_gicc = has(|contents| match contents {
        MadtContents::Gicc(cpu) => cpu.redistributor.is_some_and(|base| base != 0),
        _ => false,
    });
    let interface = has(|contents| matches!(contents, MadtContents::Gicc(cpu) if cpu.base != 0));
    let has_cpus = has(|contents| matches!(contents, MadtContents::Gicc(_))).is_some();
    let message = match (distributor.version, region.or(in_gicc), its) {
        (1 | 2, Some(other), _) => format!(
            "the GICD is a GICv{}, which has no redistributors, but the structure at {other:#x} \
             describes one: version 3 or 4 is meant",
            distributor.version
        ),
        (1 | 2, None, Some(its)) => format!(
            "the GICD is a GICv{}, which has no ITS, but {its:#x} describes one",
            distributor.version
        ),
        (0, None, _) if has_cpus && interface.is_none() => String::from(
            "the GICD states no version, and no structure a redistributor or a CPU interface",
        ),
        (0, None, Some(its)) => format!(
            "{its:#x} describes an ITS, but the GICD states no version, and no structure a \
             redistributor: Linux looks for a GICv2"
        ),
        (1 | 2, None, None) if has_cpus && interface.is_none() => format!(
            "the GICD is a GICv{}, but no GICC states the address of a CPU interface",
            distributor.version
        ),
        (1, None, None) => String::from(
            "the GICD is a GICv1, for which Linux has no driver under ACPI: version 2 is meant",
        ),
        _ => return,
    };
    findings.add(Rule::GicdVersion, in_madt(offset, "GIC version"), message);
}

/// Checks the SPIs with which the MADT overrides an MSI frame's register.
fn spis(frame: MsiFrame, offset: usize, findings: &mut FindingList) {
    let Some((first, count)) = frame.spis else { return };
    let last = u32::from(first) + u32::from(count).saturating_sub(1);
    let are_spis = [u32::from(first), last]
        .into_iter()
        .all(|intid| IntId::new(intid).class() == IntIdClass::Spi);
    if count == 0 || !are_spis {
        let message = format!(
            "{count} SPIs from INTID {first} on override MSI_TYPER, but SPIs are INTIDs 32 to 1019"
        );
        findings.add(Rule::FrameRange, in_madt(offset, "SPI base"), message);
    }
}
