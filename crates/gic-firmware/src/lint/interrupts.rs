//! Checks the SPIs that MSI controllers allocate.

use crate::controller::{Controller, ControllerKind};
use crate::description::Description;
use crate::finding::{FindingList, Rule};
use crate::origin::{NodeId, Origin};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use gic_arch::IntId;

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

pub(super) fn check(description: &Description, findings: &mut FindingList) {
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
