//! Checks the segments and the configuration space of PCI hosts.

use crate::description::Description;
use crate::finding::{FindingList, Rule};
use crate::requester::{ConfigAccess, PciHost};
use alloc::format;
use alloc::vec::Vec;

/// Bytes of configuration space per bus (PCI Express Base Specification 6.0 §7.2.2).
const BUS_BYTES: u64 = 1 << 20;

pub(super) fn check(description: &Description, findings: &mut FindingList) {
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
