//! Checks the distributor, redistributors, ITSes and MSI frames of the MADT.

use super::Checks;
use crate::acpi::fields::{gicc, gicd, gicr, its, msi_frame};
use crate::acpi::madt::{MadtStructure, of_kind};
use crate::finding::Rule;
use crate::origin::Origin;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use gic_arch::{IntId, IntIdClass};

/// Maximum number of bits of a physical address (Armv9, FEAT_D128).
pub(super) const ADDRESS_BITS: u32 = 56;

impl Checks<'_, '_> {
    pub(super) fn gic(&mut self) {
        let mut frames = BTreeSet::new();
        for structure in self.madt {
            let (name, base) = match structure.kind {
                gicd::KIND => ("GICD", gicd::BASE),
                gicr::KIND => ("GICR", gicr::BASE),
                its::KIND => ("ITS", its::BASE),
                msi_frame::KIND => ("MSI frame", msi_frame::BASE),
                _ => continue,
            };
            self.address(name, structure.get(base), structure.origin(base.name));
            if structure.kind == gicd::KIND {
                self.version(*structure);
                self.vector_base(*structure);
            } else if structure.kind == msi_frame::KIND {
                self.spis(*structure);
                let id: u32 = structure.get(msi_frame::ID);
                if !frames.insert(id) {
                    let message = format!("an earlier MSI frame also has number {id}");
                    let place = structure.origin(msi_frame::ID.name);
                    self.findings.add(Rule::DuplicateId, place, message);
                }
            }
        }
    }

    fn vector_base(&mut self, gicd: MadtStructure<'_>) {
        let vector: u32 = gicd.get(gicd::SYSTEM_VECTOR_BASE);
        if vector != 0 {
            let message = format!("{vector}, but GSIVs of a GIC are INTIDs, from 0 on");
            let place = gicd.origin(gicd::SYSTEM_VECTOR_BASE.name);
            self.findings.add(Rule::MalformedProperty, place, message);
        }
    }

    /// Reports an impossible address: zero, or wider than a physical address.
    pub(super) fn address(&mut self, name: &str, base: u64, place: Origin) {
        let message = if base == 0 {
            format!("the {name} is at address 0: the field was not filled in")
        } else if base >> ADDRESS_BITS != 0 {
            format!("{base:#x} has more than {ADDRESS_BITS} bits: no {name} can be there")
        } else {
            return;
        };
        self.findings.add(Rule::MalformedProperty, place, message);
    }

    /// Compares the distributor's version with the other structures of the MADT. Version 0 leaves
    /// the version to the hardware: Linux then looks for redistributors, and otherwise for CPU
    /// interfaces.
    fn version(&mut self, gicd: MadtStructure<'_>) {
        let giccs = || of_kind(self.madt, gicc::KIND);
        let first = |kind| of_kind(self.madt, kind).next().map(|structure| structure.offset);
        let in_gicc = giccs().find(|cpu| cpu.redistributor().is_some()).map(|cpu| cpu.offset);
        let has_interface = giccs().any(|cpu| cpu.get::<u64>(gicc::BASE) != 0);
        let lacks_interface = giccs().next().is_some() && !has_interface;
        let version: u8 = gicd.get(gicd::VERSION);
        let message = match (version, first(gicr::KIND).or(in_gicc), first(its::KIND)) {
            (1 | 2, Some(other), _) => format!(
                "the GICD is a GICv{version}, which has no redistributors, but the structure at \
                 {other:#x} describes one: version 3 or 4 is meant"
            ),
            (1 | 2, None, Some(its)) => {
                format!("the GICD is a GICv{version}, which has no ITS, but {its:#x} describes one")
            }
            (0, None, _) if lacks_interface => String::from(
                "the GICD states no version, and no structure a redistributor or a CPU interface",
            ),
            (0, None, Some(its)) => format!(
                "{its:#x} describes an ITS, but the GICD states no version, and no structure a \
                 redistributor: Linux looks for a GICv2"
            ),
            (1 | 2, None, None) if lacks_interface => format!(
                "the GICD is a GICv{version}, but no GICC states the address of a CPU interface"
            ),
            (1, None, None) => String::from(
                "the GICD is a GICv1, for which Linux has no driver under ACPI: version 2 is meant",
            ),
            _ => return,
        };
        self.findings.add(Rule::GicdVersion, gicd.origin(gicd::VERSION.name), message);
    }

    /// Checks the SPIs with which the MADT overrides an MSI frame's register.
    fn spis(&mut self, frame: MadtStructure<'_>) {
        let Some((first, count)) = frame.spis() else { return };
        let ends = [first, first + count.saturating_sub(1)];
        let are_spis = ends.iter().all(|intid| IntId::new(*intid).class() == IntIdClass::Spi);
        if count == 0 || !are_spis {
            let message = format!(
                "{count} SPIs from INTID {first} on override MSI_TYPER, but SPIs are INTIDs 32 to \
                 1019"
            );
            let place = frame.origin(msi_frame::SPI_BASE.name);
            self.findings.add(Rule::FrameRange, place, message);
        }
    }
}

/// Returns `true` if the MADT describes redistributors, which only a GICv3 or later has.
pub(in crate::acpi) fn has_redistributors(madt: &[MadtStructure<'_>]) -> bool {
    madt.iter().any(|one| one.kind == gicr::KIND || one.redistributor().is_some())
}
