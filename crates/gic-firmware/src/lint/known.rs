//! Checks the SPIs that MSI controllers allocate, and widths and features against register values.

use super::claims::claims;
use crate::controller::{Controller, ControllerKind};
use crate::description::Description;
use crate::finding::{FindingList, NodeId, Origin, Rule};
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::IntId;

/// Register values, read on the machine or copied from its manual.
///
/// Fields: IHI 0069H §12.9.38 (`GICD_TYPER`), §12.11.36 (`GICR_TYPER`), §12.19.11 (`GITS_TYPER`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct KnownRegisters {
    /// `GICD_TYPER`.
    pub gicd_typer: Option<u32>,
    /// `GICR_TYPER` of some or all redistributors.
    pub gicr_typer: Vec<u64>,
    /// `GITS_TYPER` of some or all ITSes, by their nodes.
    pub gits_typer: BTreeMap<NodeId, u64>,
}

/// INTID of the first LPI (IHI 0069H §2.2.1).
const FIRST_LPI: u64 = 8192;

impl KnownRegisters {
    /// Returns the number of LPIs of the GIC, which is 0 without support for LPIs. `None` if
    /// `GICD_TYPER` is unknown.
    pub fn lpis(&self) -> Option<u64> {
        let typer = self.gicd_typer?;
        if self.distributor_lacks(LPIS) {
            return Some(0);
        }
        let intid_bits = ((typer >> 19) & 0x1f) + 1;
        let all = (1_u64 << intid_bits).saturating_sub(FIRST_LPI);
        Some(match (typer >> 11) & 0x1f {
            0 => all,
            bits => all.min(1 << (bits + 1)),
        })
    }

    /// Returns the number of DeviceID bits of the ITS `id`; `None` if its `GITS_TYPER` is unknown.
    pub fn device_id_bits(&self, id: &NodeId) -> Option<u32> {
        self.gits_typer.get(id).map(|typer| low_bits(typer >> 13) + 1)
    }

    /// Returns the number of EventID bits of the ITS `id`; `None` if its `GITS_TYPER` is unknown.
    pub fn event_id_bits(&self, id: &NodeId) -> Option<u32> {
        self.gits_typer.get(id).map(|typer| low_bits(typer >> 8) + 1)
    }

    /// Returns the INTID of the last SPI.
    fn last_spi(&self) -> Option<u32> {
        Some((((self.gicd_typer? & 0x1f) + 1) * 32 - 1).min(1019))
    }

    /// Returns `true` if this bit is clear in the `GICR_TYPER` of a known redistributor.
    fn redistributor_lacks(&self, bit: u32) -> bool {
        self.gicr_typer.iter().any(|typer| typer & (1 << bit) == 0)
    }

    fn distributor_lacks(&self, bit: u32) -> bool {
        self.gicd_typer.is_some_and(|typer| typer & (1 << bit) == 0)
    }
}

/// Extracts a field of five bits.
const fn low_bits(field: u64) -> u32 {
    (field & 0x1f) as u32
}

/// `GICD_TYPER.MBIS`, `GICD_TYPER.LPIS`, `GICR_TYPER.PLPIS`, `GICR_TYPER.DirectLPI`.
const MBIS: u32 = 16;
const LPIS: u32 = 17;
const PLPIS: u32 = 0;
const DIRECT_LPI: u32 = 3;

pub(super) fn check(description: &Description, known: &KnownRegisters, findings: &mut FindingList) {
    for controller in description.controllers.iter().filter(|one| one.status.is_enabled()) {
        features(controller, known, findings);
    }
    widths(description, known, findings);
    spis(description, known, findings);
}

fn features(controller: &Controller, known: &KnownRegisters, findings: &mut FindingList) {
    let (rule, message) = match controller.kind {
        ControllerKind::Its if known.redistributor_lacks(PLPIS) => {
            (Rule::ItsWithoutLpis, "GICR_TYPER.PLPIS of a redistributor is 0")
        }
        ControllerKind::Its if known.distributor_lacks(LPIS) => {
            (Rule::ItsWithoutLpis, "GICD_TYPER.LPIS is 0")
        }
        ControllerKind::Mbi if known.distributor_lacks(MBIS) => {
            (Rule::MbiUnsupported, "GICD_TYPER.MBIS is 0")
        }
        ControllerKind::DirectLpi if known.redistributor_lacks(DIRECT_LPI) => {
            (Rule::DirectLpiUnsupported, "GICR_TYPER.DirectLPI of a redistributor is 0")
        }
        _ => return,
    };
    findings.add(rule, controller.status.origin.clone(), message);
}

fn widths(description: &Description, known: &KnownRegisters, findings: &mut FindingList) {
    for claim in claims(description) {
        let Some(its) = description.controller(claim.controller) else { continue };
        let Some(bits) = known.device_id_bits(&its.id) else { continue };
        if u64::from(claim.last) >> bits != 0 {
            let message =
                format!("DeviceID {:#x} at {}, which supports {bits} bits", claim.last, its.id);
            findings.add(Rule::DeviceIdWidth, claim.origin.clone(), message);
        }
    }
}

/// Compares SPIs with the number of SPIs of the distributor. The limit for extended SPIs is not
/// checked.
fn spis(description: &Description, known: &KnownRegisters, findings: &mut FindingList) {
    let Some(bound) = known.last_spi() else { return };
    let is_beyond = |last: u32| last > bound && last < 1020;
    for range in message_ranges(description) {
        if is_beyond(range.last.get()) {
            let message = format!("INTID {}, but the last one is {bound}", range.last.get());
            findings.add(Rule::SpiBeyondDistributor, range.origin.clone(), message);
        }
    }
    for user in description.wired.iter().filter(|user| user.status.is_enabled()) {
        for intid in user.interrupts.iter().filter(|intid| is_beyond(intid.get())) {
            let message = format!("INTID {}, but the last one is {bound}", intid.get());
            findings.add(Rule::SpiBeyondDistributor, intid.origin.clone(), message);
        }
    }
}

/// A controller's range of INTIDs, inclusive at both ends.
pub(super) struct Range<'d> {
    pub(super) first: IntId,
    pub(super) last: IntId,
    id: &'d NodeId,
    pub(super) origin: &'d Origin,
}

/// INTID of the first SPI, and number of SPIs (IHI 0069H §2.2.1).
const FIRST_SPI: u32 = 32;
const SPIS: u32 = 988;

pub(super) fn check_interrupts(description: &Description, findings: &mut FindingList) {
    let mut ranges = message_ranges(description);
    ranges.sort_by_key(|range| range.first);
    overlapping(&ranges, findings);
    over_wires(description, &ranges, findings);
    unused_frames(description, findings);
}

/// Returns the ranges of enabled controllers of the root GIC.
pub(super) fn message_ranges(description: &Description) -> Vec<Range<'_>> {
    let mut ranges = Vec::new();
    for controller in description.root_controllers() {
        for span in &controller.ranges {
            let Some(last) = span.last() else { continue };
            let (id, origin) = (&controller.id, &span.origin);
            ranges.push(Range { first: span.first(), last, id, origin });
        }
    }
    ranges
}

fn overlapping(sorted: &[Range<'_>], findings: &mut FindingList) {
    let mut furthest: Option<&Range<'_>> = None;
    for range in sorted {
        if let Some(before) = furthest.filter(|before| before.last >= range.first) {
            let last = range.last.min(before.last);
            let message = format!(
                "INTIDs {} to {} are in this range and in a range of {}",
                range.first.get(),
                last.get(),
                before.id
            );
            findings.add(Rule::MsiRangesOverlap, range.origin.clone(), message);
        }
        furthest = furthest.filter(|before| before.last >= range.last).or(Some(range));
    }
}

/// Reports, for each range, the first wired interrupt in it.
fn over_wires(description: &Description, ranges: &[Range<'_>], findings: &mut FindingList) {
    if ranges.is_empty() {
        return;
    }
    let users = description.wired.iter().filter(|user| user.status.is_enabled());
    let mut wired: Vec<(IntId, &NodeId)> = users
        .flat_map(|user| user.interrupts.iter().map(|interrupt| (interrupt.value, &user.id)))
        .collect();
    wired.sort();
    for range in ranges {
        let from = wired.partition_point(|(intid, _)| *intid < range.first);
        let to = wired.partition_point(|(intid, _)| *intid <= range.last);
        let Some((intid, user)) = wired.get(from..to).and_then(<[_]>::first) else { continue };
        let others = match to - from {
            1 => String::new(),
            count => format!(", and {} more INTIDs are wires, too", count - 1),
        };
        let hands_out = match range.origin.item() {
            "" => format!("{} hands out", range.id),
            item => format!("`{item}` hands out"),
        };
        let wire = intid.get();
        let number = wire.checked_sub(FIRST_SPI).filter(|number| *number < SPIS);
        let number = number.map_or_else(String::new, |number| format!(" (SPI {number})"));
        let message = format!(
            "{hands_out} INTIDs {} to {}; INTID {wire} is the wire{number} of {user}{others}",
            range.first.get(),
            range.last.get()
        );
        findings.add(Rule::MsiOverWired, range.origin.clone(), message);
    }
}

fn unused_frames(description: &Description, findings: &mut FindingList) {
    let of = |kind: ControllerKind| {
        let is_meant = move |one: &&Controller| one.kind == kind;
        description.root_controllers().filter(is_meant)
    };
    let Some(its) = of(ControllerKind::Its).next() else { return };
    for frame in of(ControllerKind::V2m) {
        let message = format!("the machine also has {}", its.id);
        findings.add(Rule::UnusedMsiFrame, frame.status.origin.clone(), message);
    }
}
