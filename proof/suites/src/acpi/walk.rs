//! Computes the route of each ID from the fields that `iasl` prints, and parses the routes that the
//! command prints.

use std::collections::BTreeMap;

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

/// Compares the routes and streams of every host and device with those that follow from the fields
/// of `iort`, the number of bits that each ITS's DeviceIDs need, and the SPIs of frames. Requesters
/// on buses that `mcfg` does not cover must have no route.
///
/// # Errors
/// Fails if the results differ.
pub(crate) fn compare(
    said: &Value,
    madt: &Table,
    iort: Option<&Table>,
    mcfg: Option<&Table>,
) -> Result<()> {
    let has_its = madt.controllers()?.iter().any(|(id, _)| id.starts_with("MADT/ITS@"));
    let nodes = Nodes::of(iort);
    let mut highest: BTreeMap<String, u64> = BTreeMap::new();
    for node in nodes.0.values() {
        let Some((id, outputs)) = sender(*node, mcfg)? else { continue };
        for to in outputs.values() {
            if let Some((its, device)) = nodes.route(*to)? {
                let known = highest.entry(its).or_insert(device);
                *known = device.max(*known);
            }
        }
        let is_host = id.ends_with(':');
        let is_meant = |device: &Value| {
            let name = text(&device["id"]);
            name == id || is_host && name.starts_with(&id)
        };
        let sample = if is_host { &SAMPLE[..] } else { &SAMPLE[..1] };
        for &requester in sample.iter().filter(|_| has_its || !is_host) {
            let to = outputs.get(&requester).copied().flatten();
            let (route, stream) = (nodes.route(to)?, nodes.stream(to)?);
            let stream = stream.filter(|_| !is_host || route.is_some());
            let what = format!("{id} requester {requester:#x}");
            same(&what, &shown(said, is_meant, requester)?, &route)?;
            let what = format!("stream of {what}");
            same(&what, &shown_stream(said, is_meant, requester)?, &stream)?;
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

/// An IORT's nodes, by their offsets.
struct Nodes<'t>(BTreeMap<u64, Part<'t>>);

/// The node and the ID that a mapping leads to.
type Output = Option<(u64, u64)>;

/// A name, and an output by requester ID.
type Sender = (String, BTreeMap<u64, Output>);

impl<'t> Nodes<'t> {
    fn of(iort: Option<&'t Table>) -> Self {
        let nodes = iort.map_or_else(Vec::new, |iort| iort.parts("Type"));
        Self(nodes.into_iter().map(|node| (node.offset(), node)).collect())
    }

    fn at(&self, offset: u64) -> Result<Part<'t>> {
        let node = self.0.get(&offset).copied();
        node.with_context(|| format!("the table has no node at {offset:#x}"))
    }

    /// Returns the controller that an output reaches, past SMMUs.
    fn route(&self, to: Output) -> Result<Route> {
        let Some((target, id)) = to else { return Ok(None) };
        let node = self.at(target)?;
        match node.number("Type")? {
            0 => Ok(Some((format!("MADT/ITS@{}", node.number("Identifiers")?), id))),
            3 | 4 => self.route(output(node, id)?),
            other => anyhow::bail!("a mapping refers to a node of type {other}"),
        }
    }

    /// Returns the IOMMU that an output reaches.
    fn stream(&self, to: Output) -> Result<Stream> {
        let Some((target, id)) = to else { return Ok(None) };
        let node = self.at(target)?;
        Ok(if matches!(node.number("Type")?, 3 | 4) { Some((smmu(node)?, id)) } else { None })
    }
}

/// Returns the name and the output of an SMMUv3 or a counter group that signals by message, that
/// is, one that has its own valid mapping and no wires (DEN 0049, SMMUv3 and PMCG nodes).
fn own_messages(node: Part<'_>) -> Result<Option<(String, (u64, u64))>> {
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
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let mapping = node.parts("Input base").into_iter().nth(index).filter(|_| counts);
    let Some(mapping) = mapping else { return Ok(None) };
    Ok(Some((name, to(mapping)?)))
}

/// Returns the name of a device, or the start of the names of a segment's hosts, with the output
/// of each of its requesters.
fn sender(node: Part<'_>, mcfg: Option<&Table>) -> Result<Option<Sender>> {
    Ok(match node.number("Type")? {
        1 => {
            let path = node.text("Device Name")?.trim_matches('"').replace("\\\\", "\\");
            let first = node.parts("Input base").first().copied();
            let is_single = first.map(|one| one.number("Single Mapping")).transpose()? == Some(1);
            let output = match first.filter(|_| is_single) {
                Some(mapping) => Some(to(mapping)?),
                None => output(node, 0)?,
            };
            Some((path, BTreeMap::from([(0, output)])))
        }
        2 => {
            let segment = node.number("PCI Segment Number")?;
            let requesters = requesters(segment, mcfg)?.into_iter();
            let outputs = requesters.map(|requester| Ok((requester, output(node, requester)?)));
            Some((format!("MCFG/{segment:04x}:"), outputs.collect::<Result<_>>()?))
        }
        4 | 5 => own_messages(node)?.map(|(id, to)| (id, BTreeMap::from([(0, Some(to))]))),
        _ => None,
    })
}

/// Returns the node that a mapping refers to, and the ID of its first input there.
fn to(mapping: Part<'_>) -> Result<(u64, u64)> {
    Ok((mapping.number("Output Reference")?, mapping.number("Output Base")?))
}

/// Returns the name of the SMMU at `node`.
fn smmu(node: Part<'_>) -> Result<String> {
    let version = if node.number("Type")? == 3 { 2 } else { 3 };
    Ok(format!("IORT/SMMUv{version}@{:x}", node.number("Base Address")?))
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
    let rows = routes_of(said, is_meant)?;
    row_of(rows.iter(), requester, ["controller", "device_id_base"])
}

/// Returns the stream that the command shows for a requester behind the device that `is_meant`
/// selects.
fn shown_stream(said: &Value, is_meant: impl Fn(&Value) -> bool, requester: u64) -> Result<Stream> {
    let mut streams = Vec::new();
    for route in routes_of(said, is_meant)? {
        streams.extend(list(route, "streams")?);
    }
    row_of(streams.into_iter(), requester, ["iommu", "stream_id_base"])
}

fn routes_of(said: &Value, is_meant: impl Fn(&Value) -> bool) -> Result<&[Value]> {
    let device = list(said, "devices")?.iter().find(|device| is_meant(device));
    device.map_or(Ok(&[]), |device| list(device, "routes").map(Vec::as_slice))
}

/// Returns the target and the ID there of the first row that contains a requester.
fn row_of<'v>(
    mut rows: impl Iterator<Item = &'v Value>,
    requester: u64,
    [target, base]: [&str; 2],
) -> Result<Option<(String, u64)>> {
    let number = |row: &Value, name: &str| row[name].as_u64().context("no number");
    rows.find_map(|row| {
        let numbers = ["rid_base", "length", base].map(|name| number(row, name));
        let [Ok(first), Ok(length), Ok(id)] = numbers else {
            return numbers.into_iter().find_map(Result::err).map(Err);
        };
        let offset = requester.checked_sub(first).filter(|&offset| offset < length)?;
        Some(Ok((text(&row[target]).to_owned(), id + offset)))
    })
    .transpose()
}

/// Returns the target of the first mapping of `node` that contains `id`, and the output ID. A
/// mapping's count may be one too high, so if one mapping ends with the ID and another starts with
/// it, the latter is used.
fn output(node: Part<'_>, id: u64) -> Result<Output> {
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
