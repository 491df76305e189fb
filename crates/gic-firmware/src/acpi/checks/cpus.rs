//! Checks the GICC structures.

use super::Checks;
use super::gic::{ADDRESS_BITS, has_redistributors};
use crate::acpi::fields::{Field, gicc};
use crate::acpi::madt::{MadtStructure, of_kind};
use crate::acpi::places::in_madt;
use crate::finding::Rule;
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
            self.findings.add(Rule::MissingMaintenanceInterrupt, place, crate::gic::NO_MAINTENANCE);
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
