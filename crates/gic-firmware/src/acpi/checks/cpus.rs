//! Checks the structures of the MADT: CPUs, the distributor, redistributors, ITSes and MSI frames.

use super::Checks;
use crate::acpi::fields::{Field, gicc, gicd, gicr, its, msi_frame};
use crate::acpi::madt::{MadtStructure, of_kind};
use crate::acpi::table::in_madt;
use crate::finding::{Origin, Rule};
use alloc::collections::btree_map::Entry;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::String;
use gic_arch::{IntId, IntIdClass};

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

impl<'c, 'a> Checks<'c, 'a> {
    fn giccs(&self) -> impl Iterator<Item = MadtStructure<'a>> + Clone + use<'c, 'a> {
        of_kind(self.madt, gicc::KIND)
    }

    pub(super) fn cpus(&mut self) {
        self.uids();
        self.enabled();
        self.interfaces();
        self.redistributors();
        for (field, consequence) in SHARED {
            let value = |gicc: MadtStructure<'_>| field.spelled(gicc.fields);
            self.equal(|gicc| gicc.is_usable(), field.name, value, consequence);
        }
        let trigger = |gicc: MadtStructure<'_>| {
            let is_edge = gicc::FLAGS.has(gicc.fields, EDGE)?;
            let trigger = if is_edge { "edge" } else { "level" };
            Some(format!("({trigger}-triggered maintenance interrupt)"))
        };
        self.equal(|gicc| gicc.is_usable(), gicc::FLAGS.name, trigger, NO_KVM);
        if !has_redistributors(self.madt) {
            // Linux compares the interfaces of all GICCs, also of those that are disabled.
            let value = |gicc: MadtStructure<'_>| gicc::BASE.spelled(gicc.fields);
            let consequence = "Linux then refuses the GIC, whose interfaces are banked";
            self.equal(|_| true, gicc::BASE.name, value, consequence);
        }
    }

    /// Reports a GICv3 whose maintenance interrupt no CPU states.
    pub(super) fn maintenance(&mut self) {
        let has_one = |gicc: MadtStructure<'_>| gicc.get::<u32>(gicc::MAINTENANCE_GSIV) != 0;
        if let Some(first) = self.giccs().next()
            && !self.giccs().any(has_one)
        {
            let place = first.origin(gicc::MAINTENANCE_GSIV.name);
            self.findings.add(
                Rule::MissingMaintenanceInterrupt,
                place,
                crate::controller::NO_MAINTENANCE,
            );
        }
    }

    fn uids(&mut self) {
        let mut known = BTreeMap::new();
        for gicc in self.giccs() {
            let uid: u32 = gicc.get(gicc::UID);
            match known.entry(uid) {
                Entry::Vacant(entry) => _ = entry.insert(gicc.offset),
                Entry::Occupied(first) => {
                    let message = format!(
                        "the CPU at {:#x} also has UID {uid}: the namespace, PPTT and SRAT cannot \
                         tell them apart",
                        first.get()
                    );
                    self.findings.add(Rule::DuplicateId, gicc.origin(gicc::UID.name), message);
                }
            }
        }
    }

    /// Reports contradictory flags, and a machine that cannot boot because its boot CPU is
    /// disabled.
    fn enabled(&mut self) {
        let Some(first) = self.giccs().next() else { return };
        let flags = |gicc: MadtStructure<'_>| gicc.get::<u32>(gicc::FLAGS);
        let unusable = match self.giccs().count() {
            _ if first.is_enabled() => None,
            _ if self.giccs().any(MadtStructure::is_enabled) => Some(format!(
                "the first GICC, which is that of the CPU that boots, has flags {:#x}: it is \
                 disabled",
                flags(first)
            )),
            1 => Some(String::from("the flags of the only GICC do not enable its CPU")),
            count => Some(format!("the flags of none of the {count} GICCs enable a CPU")),
        };
        if let Some(message) = unusable {
            self.findings.add(Rule::NoUsableCpu, first.origin(gicc::FLAGS.name), message);
        }
        let both = |gicc: &MadtStructure<'_>| gicc.is_enabled() && gicc.is_online_capable();
        let mut contradictory = self.giccs().filter(both);
        if let Some(gicc) = contradictory.next() {
            let message = format!(
                "flags {:#x} of {} CPUs: a CPU is enabled or online capable, not both",
                flags(gicc),
                1 + contradictory.count()
            );
            let place = gicc.origin(gicc::FLAGS.name);
            self.findings.add(Rule::MalformedProperty, place, message);
        }
    }

    /// Reports CPU interface addresses at which no registers can be.
    fn interfaces(&mut self) {
        for field in [gicc::BASE, gicc::GICV, gicc::GICH] {
            let wrong = self.giccs().find_map(|gicc| {
                let base: u64 = gicc.get(field);
                let is_wrong = !base.is_multiple_of(PAGE_BYTES) || base >> ADDRESS_BITS != 0;
                is_wrong.then_some((gicc, base))
            });
            if let Some((gicc, base)) = wrong {
                let message = format!(
                    "{} {base:#x} of a CPU is no address of registers; 0 stands for none",
                    field.name
                );
                self.findings.add(Rule::MalformedProperty, gicc.origin(field.name), message);
            }
        }
    }

    /// Reports CPUs that share a redistributor.
    fn redistributors(&mut self) {
        let mut known = BTreeSet::new();
        for gicc in self.giccs() {
            let Some(base) = gicc.redistributor() else { continue };
            if !known.insert(base) {
                let message = format!("an earlier CPU also has its redistributor at {base:#x}");
                let place = gicc.origin(gicc::REDISTRIBUTOR.name);
                self.findings.add(Rule::GiccRedistributor, place, message);
            }
        }
    }

    /// Reports the first CPU of those to `compare` whose value differs from the first one's.
    fn equal(
        &mut self,
        compare: impl Fn(&MadtStructure<'_>) -> bool,
        name: &'static str,
        value: impl Fn(MadtStructure<'_>) -> Option<String>,
        consequence: &str,
    ) {
        let mut cpus = self.giccs().filter(|gicc| compare(gicc));
        let Some(first) = cpus.next() else { return };
        let Some(stated) = value(first) else { return };
        let other = cpus.find(|gicc| value(*gicc).is_some_and(|other| other != stated));
        if let Some(gicc) = other {
            let message = format!(
                "{name} {} of CPU UID {} differs from {stated} of CPU UID {}; {consequence}",
                value(gicc).unwrap_or_default(),
                gicc.get::<u32>(gicc::UID),
                first.get::<u32>(gicc::UID)
            );
            self.findings.add(Rule::GiccMismatch, in_madt(gicc.offset, name), message);
        }
    }
}

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
