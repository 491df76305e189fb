//! Finds requesters that share a StreamID, and checks the segments and the configuration space of
//! PCI hosts.

use super::claims::requesters;
use crate::description::{
    BusRange, ConfigAccess, Description, IommuIndex, IommuReference, IommuRouting, PciHost,
};
use crate::finding::{FindingList, NodeId, Origin, Rule};
use alloc::format;
use alloc::vec::Vec;

/// Range of StreamIDs that one node uses at one IOMMU, inclusive at both ends.
#[derive(Clone, Copy)]
struct StreamClaim<'d> {
    iommu: IommuIndex,
    first: u32,
    last: u32,
    owner: &'d NodeId,
    /// `true` for a PCI host or another bus, `false` for a single device.
    is_bus: bool,
    /// Statement that defines the StreamIDs.
    origin: &'d Origin,
}

/// Reports buses that share a StreamID with another bus or with a device. Visits the StreamID
/// ranges of each IOMMU in ascending order, and compares each range with the earlier range that
/// ends last. Two devices may share a StreamID on purpose, if they are parts of one bus master.
pub(super) fn check(description: &Description, findings: &mut FindingList) {
    let mut sorted = claims(description);
    sorted.sort_by_key(|claim| (claim.iommu, claim.first));
    let (mut any, mut bus): (Option<StreamClaim<'_>>, Option<StreamClaim<'_>>) = (None, None);
    for claim in sorted {
        let here = |before: &StreamClaim<'_>| before.iommu == claim.iommu;
        (any, bus) = (any.filter(here), bus.filter(here));
        let before = if claim.is_bus { any } else { bus };
        let meets = |before: &StreamClaim<'_>| {
            before.last >= claim.first && !is_within(before.owner, claim.owner)
        };
        if let Some(before) = before.filter(meets) {
            report(description, claim, before, findings);
        }
        any = any.filter(|before| before.last >= claim.last).or(Some(claim));
        if claim.is_bus {
            bus = bus.filter(|before| before.last >= claim.last).or(Some(claim));
        }
    }
}

/// Returns `true` if the nodes are the same, or if one of them is below the other.
fn is_within(one: &NodeId, other: &NodeId) -> bool {
    let below = |node: &NodeId, above: &NodeId| {
        let rest = node.as_str().strip_prefix(above.as_str());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    below(one, other) || below(other, one)
}

fn report(
    description: &Description,
    claim: StreamClaim<'_>,
    before: StreamClaim<'_>,
    findings: &mut FindingList,
) {
    let iommu = description.iommu(claim.iommu).map(|iommu| iommu.id.as_str()).unwrap_or_default();
    let shared = match claim.last.min(before.last) {
        last if last == claim.first => format!("StreamID {last:#x}"),
        last => format!("StreamIDs {:#x} to {last:#x}", claim.first),
    };
    // If one of the two is a device, report the finding at the bus.
    let (at, other) = if claim.is_bus { (claim, before) } else { (before, claim) };
    let message = format!(
        "{} uses {shared} at {iommu}, and so does {}: they share one translation",
        at.owner, other.owner
    );
    findings.add(Rule::SharedStreamId, at.origin.clone(), message);
}

/// Returns the claims of enabled requesters at enabled IOMMUs.
fn claims(description: &Description) -> Vec<StreamClaim<'_>> {
    let mut claims = Vec::new();
    for host in description.hosts.iter().filter(|host| host.status.is_enabled()) {
        add_map(&mut claims, &host.id, &host.iommu, (Some(host.buses.value), true));
    }
    let devices = description.devices.iter().chain(&description.iommu_users);
    for device in devices.filter(|device| device.status.is_enabled()) {
        // A named component of the IORT, which has no compatible string, is a device even if it has
        // a range of StreamIDs.
        let is_bus = !device.compatible.is_empty();
        add_map(&mut claims, &device.id, &device.iommu, (None, is_bus));
        for reference in &device.iommus {
            let Some((first, last)) = streams(reference) else { continue };
            let (owner, origin) = (&device.id, &reference.origin);
            let iommu = reference.iommu;
            claims.push(StreamClaim { iommu, first, last, owner, is_bus: false, origin });
        }
    }
    let is_usable = |claim: &StreamClaim<'_>| {
        description.iommu(claim.iommu).is_some_and(|iommu| iommu.status.is_enabled())
    };
    claims.retain(is_usable);
    claims
}

/// Returns the first and the last StreamID of a reference. The second cell is a mask of bits that
/// the SMMU ignores; a mask whose bits are not the lowest ones counts as no mask.
fn streams(reference: &IommuReference) -> Option<(u32, u32)> {
    let id = reference.stream_id()?;
    let mask = reference.specifier.get(1).copied().unwrap_or(0);
    let mask = if mask & mask.wrapping_add(1) == 0 { mask } else { 0 };
    Some((id & !mask, id | mask))
}

/// Adds a claim for each entry of a map. Without a mask, ignores requesters on buses that are not
/// behind the host; with a mask, ignores requester IDs that exceed the mask.
fn add_map<'d>(
    claims: &mut Vec<StreamClaim<'d>>,
    owner: &'d NodeId,
    routing: &'d IommuRouting,
    (buses, is_bus): (Option<BusRange>, bool),
) {
    let (low, high) = match (&routing.mask, buses) {
        (Some(mask), _) => (0, mask.value),
        (None, Some(buses)) => requesters(buses),
        (None, None) => (0, u32::MAX),
    };
    for entry in &routing.map {
        let (Some(iommu), Some(base)) = (entry.iommu, entry.stream_id_base) else { continue };
        let Some(more) = entry.length.checked_sub(1) else { continue };
        let stated = entry.rid_base.get();
        let first = stated.max(low);
        let last = stated.saturating_add(more).min(high);
        if first > last {
            continue;
        }
        let stream = |requester: u32| base.saturating_add(requester - stated);
        let (first, last) = (stream(first), stream(last));
        claims.push(StreamClaim { iommu, first, last, owner, is_bus, origin: &entry.origin });
    }
}

/// Bytes of configuration space per bus (PCI Express Base Specification 6.0 §7.2.2).
const BUS_BYTES: u64 = 1 << 20;

pub(super) fn check_segments(description: &Description, findings: &mut FindingList) {
    let hosts = || description.hosts.iter().filter(|host| host.status.is_enabled());
    hosts().for_each(|host| ecam_size(host, findings));
    let mut sorted: Vec<(u32, &PciHost)> =
        hosts().filter_map(|host| Some((host.segment.as_ref()?.value, host))).collect();
    sorted.sort_by_key(|(segment, host)| (*segment, host.buses.first));
    let mut furthest: Option<(u32, &PciHost)> = None;
    for (segment, host) in sorted {
        let before = furthest.filter(|(other, _)| *other == segment).map(|(_, before)| before);
        if let Some(before) = before.filter(|before| before.buses.last >= host.buses.first) {
            shared(before, host, segment, findings);
        }
        let last = before.filter(|before| before.buses.last >= host.buses.last).unwrap_or(host);
        furthest = Some((segment, last));
    }
}

fn shared(one: &PciHost, other: &PciHost, segment: u32, findings: &mut FindingList) {
    let Some(stated) = &other.segment else { return };
    let last = one.buses.last.min(other.buses.last);
    let message = format!(
        "buses {:#x} to {last:#x} of segment {segment:#x} belong to {} and to {}",
        other.buses.first, one.id, other.id
    );
    findings.add(Rule::SharedSegment, stated.origin.clone(), message);
}

/// Compares the size of a host's ECAM window with the number of its buses.
fn ecam_size(host: &PciHost, findings: &mut FindingList) {
    let Some(config) = &host.config else { return };
    let ConfigAccess::Ecam(ecam) = config.value else { return };
    let buses = u64::from(host.buses.last.saturating_sub(host.buses.first)) + 1;
    let room = ecam.size() / BUS_BYTES;
    if room < buses {
        let message = format!(
            "the ECAM window {ecam} has room for {room} of the {buses} buses {:#x} to {:#x}",
            host.buses.first, host.buses.last
        );
        findings.add(Rule::EcamSize, config.origin.clone(), message);
    }
}
