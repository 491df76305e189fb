//! Checks the sizes and addresses of register frames, and whether each CPU has a redistributor.

use crate::controller::ControllerKind;
use crate::description::Description;
use crate::finding::Rule;
use crate::finding_list::FindingList;
use crate::gic::{Gic, GicVersion};
use crate::origin::{Fact, NodeId};
use crate::region::Region;
use alloc::format;
use alloc::vec::Vec;
use msi_types::DeviceId;

/// Bytes of a redistributor: two frames, or four with virtual LPIs (IHI 0069H §12.10).
const REDISTRIBUTOR_V3_BYTES: u64 = 0x2_0000;
const REDISTRIBUTOR_V4_BYTES: u64 = 0x4_0000;

pub(super) fn check(description: &Description, findings: &mut FindingList) {
    overlapping(description, findings);
    doorbells(description, findings);
    redistributors(description, findings);
}

/// Returns the frames that a machine uses, and the node of each.
fn frames(description: &Description) -> Vec<(&Fact<Region>, &NodeId)> {
    let mut frames = Vec::new();
    let usable = |gic: &&Gic| gic.status.is_enabled() && gic.version.value != GicVersion::V2;
    for gic in description.gics().filter(usable) {
        frames.push((&gic.distributor, &gic.id));
        frames.extend(gic.redistributors.iter().map(|region| (region, &gic.id)));
    }
    for controller in description.controllers.iter().filter(|one| one.status.is_enabled()) {
        if matches!(controller.kind, ControllerKind::Its | ControllerKind::V2m) {
            frames.extend(controller.registers.iter().map(|region| (region, &controller.id)));
        }
    }
    frames
}

fn overlapping(description: &Description, findings: &mut FindingList) {
    let mut frames = frames(description);
    frames.retain(|(region, _)| region.size() > 0);
    frames.sort_by_key(|(region, _)| region.value);
    let mut furthest: Option<(&Fact<Region>, &NodeId)> = None;
    for (region, id) in frames {
        let before = furthest.filter(|(before, _)| before.last() >= Some(region.base()));
        if let Some((before, of)) = before {
            let message = format!("{} overlaps {} of {of}", region.value, before.value);
            findings.add(Rule::RegistersOverlap, region.origin.clone(), message);
        }
        furthest =
            furthest.filter(|(before, _)| before.last() >= region.last()).or(Some((region, id)));
    }
}

fn doorbells(description: &Description, findings: &mut FindingList) {
    for controller in description.controllers.iter().filter(|one| one.status.is_enabled()) {
        let Some(registers) =
            controller.registers.as_ref().filter(|_| controller.pre_its.is_none())
        else {
            continue;
        };
        if let Some(doorbell) = controller.doorbell(DeviceId::new(0))
            && !registers.contains(doorbell)
        {
            let message = format!("the doorbell {doorbell:#x} is not in {}", registers.value);
            findings.add(Rule::DoorbellOutsideRegisters, registers.origin.clone(), message);
        }
    }
}

/// Compares the redistributor regions with the number of CPUs. A devicetree doesn't state whether
/// the GIC is a GICv4, whose redistributors are larger. The regions of a GICv4 have room for fewer
/// CPUs than computed here.
fn redistributors(description: &Description, findings: &mut FindingList) {
    let usable = |gic: &&Gic| gic.status.is_enabled() && gic.version.value != GicVersion::V2;
    let Some(gic) = description.gic.as_ref().filter(usable) else { return };
    let stated = gic.redistributor_stride.as_ref().map(|stride| stride.value);
    let stride = stated.unwrap_or(match gic.version.value {
        GicVersion::V4 => REDISTRIBUTOR_V4_BYTES,
        GicVersion::V2 | GicVersion::V3 => REDISTRIBUTOR_V3_BYTES,
    });
    let room = gic.redistributors.iter().fold(0u64, |room, region| {
        room.saturating_add(region.size().checked_div(stride).unwrap_or(0))
    });
    let cpus = description.enabled_cpus().count();
    if u64::try_from(cpus).is_ok_and(|cpus| cpus > room) {
        let origin = gic.redistributors.first().unwrap_or(&gic.distributor).origin.clone();
        let message = format!("room for {room} of {cpus} CPUs, at {stride:#x} bytes each");
        findings.add(Rule::TooFewRedistributors, origin, message);
    }
}
