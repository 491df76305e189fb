//! Checks maps, references, and the DeviceIDs that result from them.

use super::claims::{Claim, claims, reachable, requesters};
use crate::controller::{Controller, ControllerKind};
use crate::description::{
    ConfigAccess, Description, IommuRouting, MapEntry, MsiRouting, PciHost, Role, StreamEntry,
    Target,
};
use crate::finding::{Fact, FindingList, NodeId, Rule};
use crate::route::RouteSpan;
use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use msi_types::DeviceId;

/// Number of requester IDs on PCI, where a requester ID has 16 bits.
const PCI_REQUESTERS: u64 = 0x1_0000;

/// Number of requester IDs on one bus.
const BUS_REQUESTERS: u32 = 0x100;

pub(super) fn check(description: &Description, findings: &mut FindingList) {
    for host in description.hosts.iter().filter(|host| host.status.is_enabled()) {
        check_host(description, host, findings);
    }
    check_devices(description, findings);
    its_cells(description, findings);
    let claims = claims(description);
    shared_ids(description, &claims, findings);
    pre_its(description, &claims, findings);
    address_limits(description, findings);
}

fn check_host(description: &Description, host: &PciHost, findings: &mut FindingList) {
    unreachable_host(description, host, findings);
    mask_without_map(&host.id, &host.msi, findings);
    disabled_iommus(description, &host.msi, &host.iommu, findings);
    for routing in host.bridges.iter().map(|bridge| &bridge.msi).chain([&host.msi]) {
        beyond_pci(description, routing, findings);
    }
    aliased_buses(description, host, findings);
    unprotected_buses(host, findings);
    // With a mask, one entry can map requesters of many buses.
    if host.msi.mask.as_ref().is_none_or(|mask| mask.value & 0xffff == 0xffff) {
        uncovered_buses(host, findings);
    }
}

/// Reports an ECAM host without an MSI controller. Other hosts may have an integrated controller,
/// which devicetrees do not always describe.
fn unreachable_host(description: &Description, host: &PciHost, findings: &mut FindingList) {
    let is_ecam =
        host.config.as_ref().is_some_and(|config| matches!(config.value, ConfigAccess::Ecam(_)));
    let takes_messages = |controller: &Controller| {
        controller.status.is_enabled() && !matches!(controller.kind, ControllerKind::Other(_))
    };
    let has_controller = description.controllers.iter().any(takes_messages);
    if is_ecam && has_controller && host.msi.is_empty() && host.own_controller.is_none() {
        let controller = description.controllers.iter().find(|one| takes_messages(one));
        let of = controller.map(|one| one.id.as_str()).unwrap_or_default();
        let message =
            format!("no map and no parent leads from the host to an MSI controller, such as {of}");
        // All functions of a host with one bus are integrated.
        let has_one_bus = host.buses.first == host.buses.last;
        let rule = if has_one_bus { Rule::SingleBusWithoutMsi } else { Rule::HostWithoutMsi };
        findings.add(rule, host.id.origin(""), message);
    }
}

fn mask_without_map(id: &NodeId, msi: &MsiRouting, findings: &mut FindingList) {
    if let (Some(mask), None) = (&msi.mask, &msi.map)
        && mask.origin.place() == Some(id.as_str())
    {
        let message = "the node has no `msi-map` that the mask could apply to";
        findings.add(Rule::MaskWithoutMap, mask.origin.clone(), message);
    }
}

fn disabled_iommus(
    description: &Description,
    msi: &MsiRouting,
    passage: &IommuRouting,
    findings: &mut FindingList,
) {
    if msi.is_empty() {
        return;
    }
    let mut seen = BTreeSet::new();
    for entry in passage.map.iter().filter(|entry| entry.length > 0) {
        let Some(index) = entry.iommu.filter(|index| seen.insert(*index)) else { continue };
        if let Some(message) = disabled(description, index) {
            findings.add(Rule::DisabledIommu, entry.origin.clone(), message);
        }
    }
}

fn disabled(description: &Description, index: crate::description::IommuIndex) -> Option<String> {
    let iommu = description.iommu(index).filter(|iommu| !iommu.status.is_enabled())?;
    Some(format!("the map or reference leads to {}, which is disabled", iommu.id))
}

fn beyond_pci(description: &Description, routing: &MsiRouting, findings: &mut FindingList) {
    // If the target or its number of cells is wrong, the entry itself may have been misread.
    let resolved = |entry: &&Fact<MapEntry>| match entry.target {
        Target::Nowhere => false,
        Target::Controller(index) => description
            .controller(index)
            .is_some_and(|to| !to.kind.needs_device_id() || to.msi_cells.value == 1),
    };
    for entry in routing.map.iter().flatten().filter(resolved) {
        let (first, length) = (entry.rid_base.get(), entry.length);
        if u64::from(first) + u64::from(length) > PCI_REQUESTERS {
            let message =
                format!("{length:#x} requesters from {first:#x} on reach past requester 0xffff");
            findings.add(Rule::RequesterBeyondPci, entry.origin.clone(), message);
        }
    }
}

/// Reports map entries outside the host's buses, and buses that the map does not cover.
fn uncovered_buses(host: &PciHost, findings: &mut FindingList) {
    let Some(map) = &host.msi.map else { return };
    // An empty or broken entry has been reported, and where it ends is unknown.
    let is_broken = |entry: &Fact<MapEntry>| entry.length == 0 || entry.target == Target::Nowhere;
    if map.iter().any(is_broken) {
        return;
    }
    let (low, high) = requesters(host.buses.value);
    let is_stated = host.buses.origin.item() != "bus-range" || host.buses.value.last != 0xff;
    let mut covered = [false; 256];
    for entry in map {
        let Some((first, last)) = ends(entry) else { continue };
        if first > high || last < low {
            if is_stated && u64::from(first) < PCI_REQUESTERS {
                let message = format!(
                    "requesters {first:#x} to {last:#x} are not on buses {:#x} to {:#x}",
                    host.buses.first, host.buses.last
                );
                findings.add(Rule::UnreachableMapEntry, entry.origin.clone(), message);
            }
            continue;
        }
        let (first, last) = (first.max(low) >> 8, last.min(high) >> 8);
        let buses = covered.iter_mut().skip(first as usize).take((last - first + 1) as usize);
        buses.for_each(|bus| *bus = true);
    }
    let behind = |bus: &usize| u8::try_from(*bus).is_ok_and(|bus| host.buses.contains(bus));
    let missing = (0..covered.len()).filter(behind).filter(|bus| covered.get(*bus) == Some(&false));
    let missing: Vec<_> = missing.collect();
    if let (Some(first), Some(entry), true) =
        (missing.first(), map.first(), host.msi.parents.is_empty())
    {
        let all = usize::from(host.buses.last - host.buses.first) + 1;
        let message = format!(
            "the map covers {} of the {all} buses {:#x} to {:#x}: functions on bus {first:#x} \
             cannot signal",
            all.saturating_sub(missing.len()),
            host.buses.first,
            host.buses.last
        );
        let is_whole_bus = |entry: &Fact<MapEntry>| entry.length >= BUS_REQUESTERS;
        let has_whole_bus = map.iter().any(is_whole_bus);
        let rule = if has_whole_bus { Rule::UncoveredBus } else { Rule::UnmappedFunctions };
        findings.add(rule, entry.origin.clone(), message);
    }
}

/// Reports a mask that gives requesters of several buses the same DeviceID, if it clears all bits
/// in which the buses differ, or if an entry was written for IDs that have the cleared bits. (A
/// mask of zero, or next to entries for single functions, is deliberate.)
fn aliased_buses(description: &Description, host: &PciHost, findings: &mut FindingList) {
    let (Some(mask), Some(map)) = (&host.msi.mask, &host.msi.map) else { return };
    let (first, last) = (u32::from(host.buses.first), u32::from(host.buses.last));
    // All bits below the highest differing bit differ between some buses.
    let differing = u32::MAX.checked_shr((first ^ last).leading_zeros()).unwrap_or(0) << 8;
    let cleared = differing & !mask.value;
    if mask.value == 0 || cleared == 0 {
        return;
    }
    let reaches = |entry: &&Fact<MapEntry>| {
        ends(entry).is_some_and(|(_, last)| differing & mask.value == 0 || last & cleared != 0)
    };
    let Some(entry) = map.iter().find(reaches) else { return };
    let Target::Controller(index) = entry.target else { return };
    let needs_ids = |one: &&Controller| one.kind.needs_device_id() && one.status.is_enabled();
    let Some(its) = description.controller(index).filter(needs_ids) else { return };
    let other = first ^ (cleared >> 8 & (cleared >> 8).wrapping_neg());
    let message = format!(
        "`msi-map-mask` {:#x} clears bits of the bus number: functions on buses {first:#x} and \
         {other:#x} have the same DeviceIDs at {}",
        mask.value, its.id
    );
    findings.add(Rule::SharedDeviceId, mask.origin.clone(), message);
}

/// Reports an IOMMU map that covers whole buses, but not all buses of the host. In an IORT, one
/// list of mappings leads some buses to an SMMU and others to an ITS: the latter bypass the SMMU
/// on purpose.
fn unprotected_buses(host: &PciHost, findings: &mut FindingList) {
    let map = &host.iommu.map;
    let (None, Some(entry)) = (&host.iommu.mask, map.first()) else { return };
    let is_whole = |entry: &&Fact<StreamEntry>| entry.length >= BUS_REQUESTERS;
    let is_broken = |entry: &Fact<StreamEntry>| entry.length == 0 || entry.iommu.is_none();
    if map.iter().any(is_broken) || !map.iter().any(|entry| is_whole(&entry)) {
        return;
    }
    let range = |first: u32, length: u32| (u64::from(first), u64::from(first) + u64::from(length));
    let translated = map.iter().map(|entry| range(entry.rid_base.get(), entry.length));
    let same_list = |one: &&Fact<MapEntry>| one.origin.item() == entry.origin.item();
    let direct = host.msi.map.iter().flatten().filter(same_list);
    let direct = direct.map(|entry| range(entry.rid_base.get(), entry.length));
    let ranges: Vec<_> = translated.chain(direct).collect();
    let is_covered = |bus: &u8| {
        let first = u64::from(*bus) << 8;
        ranges.iter().any(|(from, to)| *from < first + 0x100 && first < *to)
    };
    let buses = || host.buses.first..=host.buses.last;
    let Some(missing) = buses().find(|bus| !is_covered(bus)) else { return };
    let message = format!(
        "the map covers {} of the {} buses {:#x} to {:#x}: functions on bus {missing:#x} bypass \
         the IOMMU",
        buses().filter(is_covered).count(),
        buses().count(),
        host.buses.first,
        host.buses.last
    );
    findings.add(Rule::UncoveredBus, entry.origin.clone(), message);
}

/// Returns the first and the last requester ID of an entry.
fn ends(entry: &Fact<MapEntry>) -> Option<(u32, u32)> {
    let first = entry.rid_base.get();
    Some((first, first.saturating_add(entry.length.checked_sub(1)?)))
}

fn check_devices(description: &Description, findings: &mut FindingList) {
    for device in description.devices.iter().filter(|device| device.status.is_enabled()) {
        mask_without_map(&device.id, &device.msi, findings);
        disabled_iommus(description, &device.msi, &device.iommu, findings);
        for iommu in &device.iommus {
            if let Some(message) = disabled(description, iommu.iommu) {
                findings.add(Rule::DisabledIommu, iommu.origin.clone(), message);
            }
        }
    }
}

fn its_cells(description: &Description, findings: &mut FindingList) {
    for its in &description.controllers {
        if its.kind == ControllerKind::Its && its.status.is_enabled() && its.msi_cells.value != 1 {
            let cells = its.msi_cells.value;
            let or_absent = if cells == 0 { " or absent" } else { "" };
            let message = format!(
                "`#msi-cells` is {cells}{or_absent}: a reference to the ITS needs one cell for the \
                 DeviceID"
            );
            findings.add(Rule::ItsMsiCells, its.msi_cells.origin.clone(), message);
        }
    }
}

/// Reports requesters that share a DeviceID. Visits the DeviceID ranges of each ITS in ascending
/// order, and compares each range with the earlier range that ends last. If two requesters share a
/// DeviceID, at least one of the two is reported.
fn shared_ids(description: &Description, claims: &[Claim<'_>], findings: &mut FindingList) {
    let mut sorted: Vec<&Claim<'_>> = claims.iter().collect();
    sorted.sort_by_key(|claim| (claim.controller, claim.first));
    let mut furthest: Option<&Claim<'_>> = None;
    for claim in sorted {
        let before = furthest.filter(|before| before.controller == claim.controller);
        let meets = |before: &&Claim<'_>| before.owner != claim.owner && before.last >= claim.first;
        if let Some(before) = before.filter(meets) {
            let its = description.controller(claim.controller).map(|its| its.id.as_str());
            let message = format!(
                "DeviceID {:#x} at {} is also used by {}",
                claim.first,
                its.unwrap_or_default(),
                before.owner
            );
            findings.add(Rule::SharedDeviceId, claim.origin.clone(), message);
        }
        furthest = before.filter(|before| before.last >= claim.last).or(Some(claim));
    }
}

fn pre_its(description: &Description, claims: &[Claim<'_>], findings: &mut FindingList) {
    for claim in claims {
        let its = description.controller(claim.controller).filter(|its| its.pre_its.is_some());
        let Some(its) = its.filter(|its| its.doorbell(DeviceId::new(claim.last)).is_none()) else {
            continue;
        };
        let message = format!("DeviceIDs up to {:#x} at {}, beyond its window", claim.last, its.id);
        findings.add(Rule::PreItsWindow, claim.origin.clone(), message);
    }
}

/// Returns the addresses to which the requesters of `span` write. Behind a pre-ITS, the address
/// depends on the DeviceID.
pub(crate) fn doorbells(description: &Description, span: RouteSpan) -> Vec<u64> {
    let Some(to) = description.controller(span.controller) else { return Vec::new() };
    let Some(more) = span.length.checked_sub(1).filter(|_| to.pre_its.is_some()) else {
        return description.doorbells(to);
    };
    let first = span.device_id_base.get();
    let ends = [first, first.saturating_add(more)];
    ends.into_iter().filter_map(|device| to.doorbell(DeviceId::new(device))).collect()
}

/// Returns the spans of a host and of its bridges whose messages no IOMMU translates, one for each
/// controller, or all if the address depends on the DeviceID. Operating systems ignore a disabled
/// IOMMU.
pub(crate) fn untranslated<'d>(
    description: &'d Description,
    host: &'d PciHost,
) -> impl Iterator<Item = RouteSpan> + 'd {
    let buses = Some(host.buses.value).filter(|_| host.msi.mask.is_none());
    let bridges = host.bridges.iter().filter(|bridge| bridge.status.is_enabled());
    let below = bridges.flat_map(|bridge| description.bridge_spans(bridge));
    let spans = description.host_spans(host).chain(below);
    let spans = spans.filter_map(move |span| reachable(span, buses)).filter(|span| {
        let passed = host.iommu.stream(span.rid_base);
        let passed = passed.and_then(|(index, _)| description.iommu(index));
        passed.is_none_or(|iommu| !iommu.status.is_enabled())
    });
    let mut seen = BTreeSet::new();
    spans.filter(move |span| {
        let to = description.controller(span.controller);
        seen.insert(span.controller) || to.is_some_and(|to| to.pre_its.is_some())
    })
}

/// Compares the doorbells with the address bits of requesters that aren't behind an IOMMU.
fn address_limits(description: &Description, findings: &mut FindingList) {
    let mut compare = |bits: &Fact<u8>, span: RouteSpan| {
        let highest = doorbells(description, span).into_iter().max();
        let limit = 1u64.checked_shl(bits.value.into());
        if let (Some(doorbell), Some(limit)) = (highest, limit)
            && doorbell >= limit
        {
            let message = format!("{} bits do not reach the doorbell {doorbell:#x}", bits.value);
            findings.add(Rule::AddressSizeLimit, bits.origin.clone(), message);
        }
    };
    for host in description.hosts.iter().filter(|host| host.status.is_enabled()) {
        let Some(bits) = &host.address_bits else { continue };
        untranslated(description, host).for_each(|span| compare(bits, span));
    }
    let devices = description.devices.iter().filter(|device| device.status.is_enabled());
    for device in devices.filter(|device| device.iommus.is_empty() && device.role == Role::Device) {
        let Some(bits) = &device.address_bits else { continue };
        description.device_spans(device).into_iter().for_each(|span| compare(bits, span));
    }
}
