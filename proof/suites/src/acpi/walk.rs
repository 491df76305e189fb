//! Computes the route of each ID from the fields that `iasl` prints, and parses the routes that the
//! command prints.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use super::disassembly::{Part, Table};
use crate::said::{list, same, text};

/// Requester IDs that are tested at each host.
pub(crate) const SAMPLE: [u64; 15] = [
    0, 1, 0xff, 0x100, 0x101, 0x7ff, 0x1000, 0x4000, 0x5fff, 0x6000, 0x7fff, 0x8000, 0x8001,
    0xff00, 0xffff,
];

/// The name of a controller, and a DeviceID at that controller.
pub(crate) type Route = Option<(String, u64)>;

/// The IOMMU on a requester's path, and the requester's StreamID at that IOMMU.
type Stream = Option<(String, u64)>;

/// Compares the routes and streams of every host and device with the results computed from the
/// fields of `iort`. Requesters on buses that `mcfg` does not cover must have no route.
///
/// # Errors
/// Fails if the results differ.
pub(crate) fn compare(
    said: &Value,
    iort: &Table,
    madt: &Table,
    mcfg: Option<&Table>,
) -> Result<()> {
    let known = madt.controllers()?;
    let nodes: BTreeMap<_, _> =
        iort.parts("Type").iter().map(|node| (node.offset(), *node)).collect();
    let has_its = known.iter().any(|(id, _)| id.starts_with("MADT/ITS@"));
    for node in nodes.values() {
        match node.number("Type")? {
            1 => {
                let path = node.text("Device Name")?.trim_matches('"').replace("\\\\", "\\");
                let is_meant = |device: &Value| device["id"] == path.as_str();
                let first = node.parts("Input base").first().copied();
                let is_single =
                    first.map(|one| one.number("Single Mapping")).transpose()? == Some(1);
                let theirs =
                    if is_single { single(&nodes, *node)? } else { follow(&nodes, *node, 0)? };
                same(&path, &shown(said, is_meant, 0)?, &theirs)?;
                let theirs =
                    if is_single { own_stream(&nodes, *node)? } else { passed(&nodes, *node, 0)? };
                same(&format!("{path}'s stream"), &shown_stream(said, is_meant, 0)?, &theirs)?;
            }
            2 if has_its => {
                let number = node.number("PCI Segment Number")?;
                let existing: BTreeSet<_> = requesters(number, mcfg)?.into_iter().collect();
                let segment = format!("MCFG/{number:04x}:");
                let is_host = |device: &Value| text(&device["id"]).starts_with(&segment);
                for requester in SAMPLE {
                    let theirs = follow(&nodes, *node, requester)?;
                    let theirs = theirs.filter(|_| existing.contains(&requester));
                    let what = format!("{segment} requester {requester:#x}");
                    same(&what, &shown(said, is_host, requester)?, &theirs)?;
                    let theirs = passed(&nodes, *node, requester)?.filter(|_| theirs.is_some());
                    let what = format!("stream of {what}");
                    same(&what, &shown_stream(said, is_host, requester)?, &theirs)?;
                }
            }
            4 | 5 => {
                let theirs = own_messages(&nodes, *node)?;
                if let Some((id, route)) = theirs {
                    same(&id, &shown(said, |device| device["id"] == id.as_str(), 0)?, &route)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns the name and the route of an SMMUv3 or a counter group that signals by message, that is,
/// one that has its own valid mapping and no wires (DEN 0049, SMMUv3 and PMCG nodes).
fn own_messages(
    nodes: &BTreeMap<u64, Part<'_>>,
    node: Part<'_>,
) -> Result<Option<(String, Route)>> {
    const WIRES: [&str; 4] = ["Event GSIV", "PRI GSIV", "GERR GSIV", "Sync GSIV"];
    let is_smmu = node.number("Type")? == 4;
    let (name, wires, index) = if is_smmu {
        (smmu(node)?, &WIRES[..], node.number("Device ID Mapping Index").unwrap_or(u64::MAX))
    } else {
        let base = node.number("Page 0 Base Address")?;
        (format!("IORT/PMCG@{base:x}"), &["Overflow Interrupt GSIV"][..], 0)
    };
    let mut is_wired = true;
    for wire in wires {
        is_wired &= node.number(wire)? != 0;
    }
    // Since revision 5, a flag states whether the index is valid.
    let has_flag = is_smmu && node.number("Revision")? >= 5;
    let counts = if has_flag { node.number("DeviceID Valid")? == 1 } else { !is_wired };
    let mapping =
        node.parts("Input base").into_iter().nth(usize::try_from(index).unwrap_or(usize::MAX));
    let Some(mapping) = mapping.filter(|_| counts) else { return Ok(None) };
    let route = enter(nodes, mapping.number("Output Reference")?, mapping.number("Output Base")?)?;
    Ok(Some((name, route)))
}

/// Returns the name of the SMMU at `node`.
fn smmu(node: Part<'_>) -> Result<String> {
    let version = if node.number("Type")? == 3 { 2 } else { 3 };
    Ok(format!("IORT/SMMUv{version}@{:x}", node.number("Base Address")?))
}

/// Returns the stream of a device with a single mapping.
fn own_stream(nodes: &BTreeMap<u64, Part<'_>>, node: Part<'_>) -> Result<Stream> {
    let Some(mapping) = node.parts("Input base").into_iter().next() else { return Ok(None) };
    stream(nodes, mapping.number("Output Reference")?, mapping.number("Output Base")?)
}

/// Returns the stream of `id` at `node`.
fn passed(nodes: &BTreeMap<u64, Part<'_>>, node: Part<'_>, id: u64) -> Result<Stream> {
    match output(node, id)? {
        Some((target, output)) => stream(nodes, target, output),
        None => Ok(None),
    }
}

fn stream(nodes: &BTreeMap<u64, Part<'_>>, target: u64, id: u64) -> Result<Stream> {
    let node = *nodes.get(&target).context("a mapping refers to no node")?;
    Ok(if matches!(node.number("Type")?, 3 | 4) { Some((smmu(node)?, id)) } else { None })
}

/// Returns the stream that the command shows for a requester behind the device that `is_meant`
/// selects.
fn shown_stream(said: &Value, is_meant: impl Fn(&Value) -> bool, requester: u64) -> Result<Stream> {
    let Some(device) = list(said, "devices")?.iter().find(|device| is_meant(device)) else {
        return Ok(None);
    };
    for route in list(device, "routes")? {
        for stream in list(route, "streams")? {
            let number = |name: &str| stream[name].as_u64().context("no number");
            let (base, length) = (number("rid_base")?, number("length")?);
            if let Some(offset) = requester.checked_sub(base).filter(|&offset| offset < length) {
                return Ok(Some((
                    text(&stream["iommu"]).to_owned(),
                    number("stream_id_base")? + offset,
                )));
            }
        }
    }
    Ok(None)
}

/// Compares the number of bits that each ITS's DeviceIDs need, and the SPIs of frames, with the
/// numbers computed from the fields. The number of DeviceID bits follows from the highest DeviceID
/// of the requesters on existing buses.
///
/// # Errors
/// Fails if the results differ.
pub(crate) fn compare_capacity(
    said: &Value,
    madt: &Table,
    iort: Option<&Table>,
    mcfg: Option<&Table>,
) -> Result<()> {
    let nodes = iort.map_or_else(Vec::new, |iort| iort.parts("Type"));
    let nodes: BTreeMap<_, _> = nodes.into_iter().map(|node| (node.offset(), node)).collect();
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    let mut add = |route: Route| {
        if let Some((its, device)) = route {
            let known = highest.entry(its).or_insert(device);
            *known = device.max(*known);
        }
    };
    for node in nodes.values() {
        match node.number("Type")? {
            1 => add(single(&nodes, *node)?),
            2 => {
                for requester in requesters(node.number("PCI Segment Number")?, mcfg)? {
                    add(follow(&nodes, *node, requester)?);
                }
            }
            4 | 5 => add(own_messages(&nodes, *node)?.and_then(|(_, route)| route)),
            _ => {}
        }
    }
    let bits = |id: &u64| id.checked_ilog2().map_or(1, |highest| u64::from(highest) + 1);
    let spis = madt.frame_spis()?;
    for row in list(said, "capacity")? {
        let id = text(&row["controller"]);
        let what = format!("DeviceID bits that {id} needs");
        same(&what, &row["needed_device_id_bits"].as_u64(), &highest.get(id).map(bits))?;
        if row["kind"] == "v2m" {
            let theirs = spis.get(id).copied().flatten();
            same(&format!("SPIs of {id}"), &row["interrupts"].as_u64(), &theirs)?;
        }
    }
    Ok(())
}

/// Returns the requester IDs on the buses of a segment.
fn requesters(segment: u64, mcfg: Option<&Table>) -> Result<Vec<u64>> {
    let windows = mcfg.map_or_else(Vec::new, |mcfg| mcfg.parts("Base Address"));
    let mut buses = Vec::new();
    let mut is_known = false;
    for window in windows {
        if window.number("Segment Group Number")? == segment {
            is_known = true;
            buses.extend(window.number("Start Bus Number")?..=window.number("End Bus Number")?);
        }
    }
    let buses = if is_known { buses } else { (0..=0xff).collect() };
    Ok(buses.into_iter().flat_map(|bus| (bus << 8)..=(bus << 8 | 0xff)).collect())
}

/// Returns the route of a requester behind the first host, identified by the controller's doorbell.
///
/// # Errors
/// Fails if a field is missing.
pub(crate) fn first_host_route(said: &Value, requester: u64) -> Result<Route> {
    let host = list(said, "devices")?.iter().find(|device| device["routes"] != Value::Null);
    let Some(host) = host else { return Ok(None) };
    let Some((id, device)) = shown(said, |one| one["id"] == host["id"], requester)? else {
        return Ok(None);
    };
    let controllers = list(said, "controllers")?;
    let controller = controllers.iter().find(|one| one["id"] == id.as_str());
    Ok(controller.map(|one| (one["doorbells"].to_string(), device)))
}

/// Returns every device's routes without names: requesters, DeviceIDs and doorbells.
///
/// # Errors
/// Fails if a field is missing.
pub(crate) fn all_routes(said: &Value) -> Result<Vec<Vec<String>>> {
    let controllers = list(said, "controllers")?;
    let doorbells = |id: &Value| {
        let controller = controllers.iter().find(|one| one["id"] == *id);
        controller.map_or(Value::Null, |one| one["doorbells"].clone())
    };
    let row = |route: &Value| {
        let (first, length) = (&route["rid_base"], &route["length"]);
        let doorbells = doorbells(&route["controller"]);
        format!("{first}+{length} {} {doorbells}", route["device_id_base"])
    };
    let devices = list(said, "devices")?.iter();
    devices.map(|device| Ok(list(device, "routes")?.iter().map(row).collect())).collect()
}

/// Returns the route that the command shows for a requester behind the device for which `is_meant`
/// returns `true`.
///
/// # Errors
/// Fails if a field is missing.
pub(crate) fn shown(
    said: &Value,
    is_meant: impl Fn(&Value) -> bool,
    requester: u64,
) -> Result<Route> {
    let device = list(said, "devices")?.iter().find(|device| is_meant(device));
    let Some(device) = device else { return Ok(None) };
    let number = |value: &Value| value.as_u64().context("no number");
    for route in list(device, "routes")? {
        let (base, length) = (number(&route["rid_base"])?, number(&route["length"])?);
        if let Some(offset) = requester.checked_sub(base).filter(|&offset| offset < length) {
            let id = number(&route["device_id_base"])? + offset;
            return Ok(Some((text(&route["controller"]).to_owned(), id)));
        }
    }
    Ok(None)
}

/// Returns the route of a device with a single mapping.
fn single(nodes: &BTreeMap<u64, Part<'_>>, node: Part<'_>) -> Result<Route> {
    let Some(mapping) = node.parts("Input base").into_iter().next() else { return Ok(None) };
    enter(nodes, mapping.number("Output Reference")?, mapping.number("Output Base")?)
}

/// Returns the route of `id` at `node`.
fn follow(nodes: &BTreeMap<u64, Part<'_>>, node: Part<'_>, id: u64) -> Result<Route> {
    match output(node, id)? {
        Some((target, output)) => enter(nodes, target, output),
        None => Ok(None),
    }
}

/// Returns the target of the first mapping of `node` that contains `id`, and the output ID. A
/// mapping's count may be one too high, so if one mapping ends with the ID and another starts with
/// it, the latter is used.
fn output(node: Part<'_>, id: u64) -> Result<Option<(u64, u64)>> {
    let own = node.number("Device ID Mapping Index").ok();
    let mut found = None;
    for (index, mapping) in (0..).zip(node.parts("Input base")) {
        let (first, more) = (mapping.number("Input base")?, mapping.number("ID Count")?);
        let is_own = own == Some(index) && mapping.number("Single Mapping")? == 1;
        let holds = (first..=first + more).contains(&id);
        if is_own || !holds || (found.is_some() && id != first) {
            continue;
        }
        let output = mapping.number("Output Base")? + (id - first);
        found = Some((mapping.number("Output Reference")?, output));
        if more == 0 || id != first + more {
            break;
        }
    }
    Ok(found)
}

fn enter(nodes: &BTreeMap<u64, Part<'_>>, target: u64, id: u64) -> Result<Route> {
    let node =
        *nodes.get(&target).with_context(|| format!("the table has no node at {target:#x}"))?;
    match node.number("Type")? {
        0 => Ok(Some((format!("MADT/ITS@{}", node.number("Identifiers")?), id))),
        3 | 4 => follow(nodes, node, id),
        other => anyhow::bail!("a mapping refers to a node of type {other}"),
    }
}
