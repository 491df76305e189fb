//! Lint rules that check a whole description. The readers check all other rules while they read the
//! input.
//!
//! | module | looks at |
//! |---|---|
//! | `msi_maps` | maps, references, DeviceIDs |
//! | `streams` | StreamIDs; PCI segments, configuration space |
//! | `frames` | registers, redistributors |
//! | `known` | SPIs that messages and wires use; facts that only registers tell |
//! | `symptoms` | findings that follow from others |
//!
//! Apart from sorting, each rule takes time and memory proportional to the description.

mod claims;
mod frames;
mod known;
pub(crate) mod msi_maps;
mod streams;
mod symptoms;

pub use known::KnownRegisters;

use crate::controller::{Coherence, Controller, ControllerIndex, ControllerKind, Gic, GicVersion};
use crate::description::{Description, PciHost};
use crate::finding::{Finding, FindingList, Origin, RegionSet, Rule};
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt::Display;
use gic_arch::Affinity;
use msi_types::{DeviceId, RequesterId};

/// Returns all findings about `description`: first the findings of the reader, then those of the
/// rules that check the whole description.
///
/// `known` contains register values. A rule that needs an unknown value does not report anything.
///
/// ```
/// use gic_firmware::lint::{self, KnownRegisters};
/// use gic_firmware::{Rule, devicetree};
///
/// let machine = devicetree::parse_and_check(include_bytes!("../tests/data/mbi.dtb"))?;
/// // The GICD_TYPER of this machine reports no message-based SPIs (MBIS is 0).
/// let known = KnownRegisters { gicd_typer: Some(0x0078_0009), ..Default::default() };
/// let findings = lint::check(&machine, &known);
/// for finding in &findings {
///     println!("{finding}");
/// }
/// assert!(findings.iter().any(|finding| finding.rule == Rule::MbiUnsupported));
/// # Ok::<(), devicetree::DtbError>(())
/// ```
pub fn check(description: &Description, known: &KnownRegisters) -> Vec<Finding> {
    let mut findings = FindingList::new(description.findings.clone());
    msi_maps::check(description, &mut findings);
    streams::check(description, &mut findings);
    streams::check_segments(description, &mut findings);
    known::check_interrupts(description, &mut findings);
    frames::check(description, &mut findings);
    known::check(description, known, &mut findings);
    let mut findings = findings.into_list();
    symptoms::remove(&mut findings);
    findings
}

/// Returns the highest DeviceID of enabled requesters at each enabled controller that needs
/// DeviceIDs.
///
/// Ignores requester IDs outside a host's bus range, and requesters that have no entry in `msi-map`
/// and so fall back to `msi-parent`.
pub fn highest_device_ids(description: &Description) -> BTreeMap<ControllerIndex, DeviceId> {
    let mut highest = BTreeMap::new();
    for claim in claims::claims(description) {
        let known = highest.entry(claim.controller).or_insert(DeviceId::new(claim.last));
        *known = DeviceId::new(known.get().max(claim.last));
    }
    highest
}

/// Returns the contradictions between two descriptions of one machine. The findings point at
/// `other`.
pub fn compare(one: &Description, other: &Description) -> Vec<Finding> {
    let mut findings = FindingList::default();
    contradictions(one, other, &mut findings);
    findings.into_list()
}

fn contradictions(one: &Description, other: &Description, findings: &mut FindingList) {
    cpus(one, other, findings);
    if let (Some(one), Some(other)) = (&one.gic, &other.gic) {
        gics(one, other, findings);
    }
    controllers(one, other, findings);
    routes(one, other, findings);
}

fn cpus(one: &Description, other: &Description, findings: &mut FindingList) {
    let affinities = |description: &Description| -> BTreeSet<Affinity> {
        description.enabled_cpus().map(|cpu| cpu.affinity.value).collect()
    };
    let (here, there) = (affinities(one), affinities(other));
    let first = other.cpus.first().map(|cpu| cpu.affinity.origin.clone());
    report(&here, &there, Rule::ContradictingCpus, first, findings);
}

/// Reports the elements that only one of two sets contains.
fn report<T: Ord + Display>(
    here: &BTreeSet<T>,
    there: &BTreeSet<T>,
    rule: Rule,
    place: Option<Origin>,
    findings: &mut FindingList,
) {
    let list = |items: Vec<&T>| {
        let shown: Vec<String> = items.iter().take(4).map(ToString::to_string).collect();
        let more = if items.len() > 4 { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    };
    let missing: Vec<_> = here.difference(there).collect();
    let extra: Vec<_> = there.difference(here).collect();
    let message = match (missing.is_empty(), extra.is_empty()) {
        (true, true) => return,
        (false, true) => format!("{} only in the first description", list(missing)),
        (true, false) => format!("{} only in the second description", list(extra)),
        (false, false) => format!("{} in the first, {} in the second", list(missing), list(extra)),
    };
    findings.add(rule, place.unwrap_or(Origin::program()), message);
}

/// Compares two GICs. A devicetree does not distinguish GICv4 from GICv3.
fn gics(one: &Gic, other: &Gic, findings: &mut FindingList) {
    let is_v2 = |gic: &Gic| gic.version.value == GicVersion::V2;
    if is_v2(one) != is_v2(other) {
        let message =
            format!("{} in the first, {} in the second", one.version.value, other.version.value);
        return findings.add(Rule::ContradictingGic, other.version.origin.clone(), message);
    }
    let (here, there) = (one.distributor.base(), other.distributor.base());
    if here != there {
        let message = format!("the distributor is at {here:#x} in the first, at {there:#x} here");
        findings.add(Rule::ContradictingGic, other.distributor.origin.clone(), message);
    }
    if one.coherence.value != other.coherence.value {
        let is_first = one.coherence.value == Coherence::NonCoherent;
        let which = if is_first { "the first" } else { "the second" };
        let message = format!("the redistributors are non-coherent only in {which}");
        findings.add(Rule::ContradictingGic, other.coherence.origin.clone(), message);
    }
    // One description may list a region per CPU, the other a single region for all.
    for (gic, within) in [(one, other), (other, one)] {
        let covered = RegionSet::new(within.redistributors.iter().map(|region| region.value));
        let mut stated = gic.redistributors.iter().filter(|region| region.size() > 0);
        let lost = stated.find(|region| !covered.contains(region.base()));
        if let Some(region) = lost.filter(|_| !within.redistributors.is_empty()) {
            let message = format!("redistributors at {} are in only one of the two", region.value);
            return findings.add(Rule::ContradictingGic, region.origin.clone(), message);
        }
    }
}

/// Returns the kind and the base address of a controller. ACPI has no structure for Direct LPI and
/// MBI, so these controllers are ignored.
fn key(controller: &Controller) -> Option<(&'static str, u64)> {
    let kind = match controller.kind {
        ControllerKind::Its => "ITS",
        ControllerKind::V2m => "v2m frame",
        _ => return None,
    };
    Some((kind, controller.registers.as_ref()?.base()))
}

fn controllers(one: &Description, other: &Description, findings: &mut FindingList) {
    let keys = |description: &Description| -> BTreeSet<String> {
        let usable = description.controllers.iter().filter(|one| one.status.is_enabled());
        let shown = |controller: &Controller| {
            let (kind, base) = key(controller)?;
            let is_coherent = controller.coherence.value != Coherence::NonCoherent;
            Some(format!("{}{kind} at {base:#x}", if is_coherent { "" } else { "non-coherent " }))
        };
        usable.filter_map(shown).collect()
    };
    let place = other.controllers.first().map(|controller| controller.status.origin.clone());
    report(&keys(one), &keys(other), Rule::ContradictingControllers, place, findings);
}

/// Compares the routes of each host for the first and the last requester of every span in either
/// description. Hosts are matched by the address of their configuration space.
fn routes(one: &Description, other: &Description, findings: &mut FindingList) {
    let base = |host: &PciHost| host.config.as_ref().map(|config| config.region().base());
    let usable = |host: &&PciHost| host.status.is_enabled();
    let mut here: BTreeMap<u64, Option<&PciHost>> = BTreeMap::new();
    for host in one.hosts.iter().filter(usable) {
        let Some(base) = base(host) else { continue };
        // Hosts with the same address are ambiguous, so they are not compared.
        here.entry(base).and_modify(|known| *known = None).or_insert(Some(host));
    }
    for host in other.hosts.iter().filter(usable) {
        let Some(same) = base(host).and_then(|base| *here.get(&base)?) else { continue };
        let ends = ends(one, same).into_iter().chain(ends(other, host));
        let (first, last) = claims::requesters(host.buses.value);
        for requester in ends.filter(|id| (first..=last).contains(id)).map(RequesterId::new) {
            let (left, right) = (route(one, same, requester), route(other, host, requester));
            if left != right {
                let message = format!(
                    "requester {requester} is {} in the first, {} here",
                    shown(left),
                    shown(right)
                );
                findings.add(Rule::ContradictingRoutes, host.buses.origin.clone(), message);
                break;
            }
        }
    }
}

/// Maximum number of spans compared per host, limited because each lookup walks the host's map.
const MAX_SPANS: usize = 64;

fn ends(description: &Description, host: &PciHost) -> Vec<u32> {
    let spans = description.host_spans(host).take(MAX_SPANS);
    let ends = spans.flat_map(|span| {
        let first = span.rid_base.get();
        [first, first.saturating_add(span.length.saturating_sub(1))]
    });
    ends.collect()
}

/// Returns the base address of the controller that serves a requester, and the requester's
/// DeviceID.
fn route(
    description: &Description,
    host: &PciHost,
    requester: RequesterId,
) -> Option<(u64, DeviceId)> {
    let route = description.route(host, requester).ok()?;
    let (_, base) = key(description.controller(route.controller)?)?;
    Some((base, route.device_id))
}

fn shown(route: Option<(u64, DeviceId)>) -> String {
    route.map_or_else(
        || String::from("not routed"),
        |(base, device)| format!("DeviceID {:#x} at {base:#x}", device.get()),
    )
}
