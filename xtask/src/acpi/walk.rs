//! Routes by `iasl`'s fields, one ID at a time, and routes as the command shows them.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;

use super::disassembly::{Part, Table};
use super::{list, same, text};

/// Requester IDs that are tried at each host.
pub(super) const SAMPLE: [u64; 9] = [0, 1, 0xff, 0x100, 0x101, 0x7ff, 0x1000, 0xff00, 0xffff];

/// A controller's name and a DeviceID there.
type Route = Option<(String, u64)>;

/// Compares every host's and device's routes with those that the fields of `iort` make.
pub(super) fn compare(said: &Value, iort: &Table, madt: &Table) -> Result<()> {
    let known = madt.controllers()?;
    let nodes: BTreeMap<_, _> =
        iort.parts("Type").iter().map(|node| (node.offset(), *node)).collect();
    let has_its = known.iter().any(|(id, _)| id.starts_with("MADT/ITS@"));
    for node in nodes.values() {
        match node.number("Type")? {
            1 => {
                let path = node.text("Device Name")?.trim_matches('"').replace("\\\\", "\\");
                let theirs = single(&nodes, *node)?;
                same(&path, &shown(said, |device| device["id"] == path.as_str(), 0)?, &theirs)?;
            }
            2 if has_its => {
                let segment = format!("MCFG/{:04x}:", node.number("PCI Segment Number")?);
                let is_host = |device: &Value| text(&device["id"]).starts_with(&segment);
                for requester in SAMPLE {
                    let theirs = follow(&nodes, *node, requester)?;
                    let what = format!("{segment} requester {requester:#x}");
                    same(&what, &shown(said, is_host, requester)?, &theirs)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// The route of a requester behind the first host, by the controller's doorbell.
pub(super) fn first_host_route(said: &Value, requester: u64) -> Result<Route> {
    let host = list(said, "devices")?.iter().find(|device| device["routes"] != Value::Null);
    let Some(host) = host else { return Ok(None) };
    let Some((id, device)) = shown(said, |one| one["id"] == host["id"], requester)? else {
        return Ok(None);
    };
    let controllers = list(said, "controllers")?;
    let controller = controllers.iter().find(|one| one["id"] == id.as_str());
    Ok(controller.map(|one| (one["doorbells"].to_string(), device)))
}

/// Every device's routes, without names: requesters, DeviceIDs and doorbells.
pub(super) fn all_routes(said: &Value) -> Result<Vec<Vec<String>>> {
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

/// The route that the command shows.
pub(super) fn shown(
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
            return Ok(Some((text(&route["controller"]), id)));
        }
    }
    Ok(None)
}

/// The route of a device by its single mapping.
fn single(nodes: &BTreeMap<u64, Part<'_>>, node: Part<'_>) -> Result<Route> {
    let Some(mapping) = node.parts("Input base").into_iter().next() else { return Ok(None) };
    enter(nodes, mapping.number("Output Reference")?, mapping.number("Output Base")?)
}

/// The route of the ID `id` at `node`, by the first mapping that holds it.
fn follow(nodes: &BTreeMap<u64, Part<'_>>, node: Part<'_>, id: u64) -> Result<Route> {
    let own = node.number("Device ID Mapping Index").ok();
    for (index, mapping) in (0..).zip(node.parts("Input base")) {
        let (first, more) = (mapping.number("Input base")?, mapping.number("ID Count")?);
        let is_own = own == Some(index) && mapping.number("Single Mapping")? == 1;
        if !is_own && (first..=first + more).contains(&id) {
            let output = mapping.number("Output Base")? + (id - first);
            return enter(nodes, mapping.number("Output Reference")?, output);
        }
    }
    Ok(None)
}

fn enter(nodes: &BTreeMap<u64, Part<'_>>, target: u64, id: u64) -> Result<Route> {
    let node = *nodes.get(&target).with_context(|| format!("no node at {target:#x}"))?;
    match node.number("Type")? {
        0 => Ok(Some((format!("MADT/ITS@{}", node.number("Identifiers")?), id))),
        3 | 4 => follow(nodes, node, id),
        other => anyhow::bail!("a mapping leads to a node of type {other}"),
    }
}
