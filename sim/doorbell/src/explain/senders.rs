//! Finds the requesters that a name means.

use crate::wording::{did_you_mean, number};
use anyhow::{Result, bail};
use doorbell_inspection::Source;
use doorbell_inspection::lint::{Excerpts, place};
use doorbell_inspection::requesters;
use gic_firmware::{
    Description, Fact, IommuIndex, MsiRouting, NoRoute, Origin, PciHost, PlatformDevice,
    RequesterId, Role, Route, Status,
};
use std::ffi::OsStr;
use std::path::Path;

/// A requester, and what firmware states at it about its messages.
pub(super) struct Sender<'d> {
    pub(super) name: String,
    /// Node of the requester or of its bus.
    pub(super) owner: &'d str,
    pub(super) requester: Option<RequesterId>,
    pub(super) status: Status,
    pub(super) msi: &'d MsiRouting,
    pub(super) route: Result<Route, NoRoute>,
    /// IOMMUs that the messages pass, each with the StreamID if firmware states one.
    pub(super) passes: Vec<(IommuIndex, Option<u32>)>,
    /// A fact that firmware leaves open.
    pub(super) note: Option<String>,
    /// Firmware names no MSI controller, but the host bridge may have one of its own.
    pub(super) may_have_its_own: bool,
    /// Places that state the requester.
    pub(super) places: Vec<Origin>,
}

/// Statements of a node that has none.
static NO_STATEMENTS: MsiRouting = MsiRouting { mask: None, map: None, parents: Vec::new() };

/// Returns the requesters that a name means: a DeviceID, a function, a requester of a bus, or a
/// node.
pub(super) fn named<'d>(source: &'d Source, name: &'d str) -> Result<Vec<Sender<'d>>> {
    let description = &source.description;
    if let Ok(id) = number(name) {
        return with_device_id(description, id);
    }
    if let Some((node, id)) = name.strip_suffix(']').and_then(|name| name.rsplit_once('['))
        && let Ok(id) = number(id)
        && let Some(bus) = device(description, node)?
    {
        return Ok(vec![of_bus(description, bus, RequesterId::new(id))]);
    }
    if let Some(device) = device(description, name)? {
        return of_device(description, device);
    }
    let (node, function) = match name.rsplit_once(' ') {
        Some((node, function)) => (Some(node), function),
        None => (None, name),
    };
    let hosts = || description.hosts.iter().map(|host| (host.id.as_str(), host));
    let Some((segment, id)) = requesters::function_address(function) else {
        if let Some(host) = unique(hosts(), name)? {
            let id = &host.id;
            bail!("the node is a PCI host: name a function, such as \"{id} 00:01.0\"");
        }
        if exists(source, name) {
            return Ok(vec![without_parent(name)]);
        }
        bail!(unknown(description, name));
    };
    let only = node.map(|node| unique(hosts(), node)).transpose()?.flatten();
    let is_meant = |host: &&PciHost| {
        let stated = host.segment.as_ref().map(|stated| stated.value);
        let is_segment =
            segment.is_none_or(|segment| stated.is_none_or(|stated| stated == segment));
        let is_node = node.is_none() || only.is_some_and(|only| only.id == host.id);
        is_node && is_segment && host.buses.contains(id.pci_bus())
    };
    let hosts = description.hosts.iter().filter(is_meant);
    let senders: Vec<_> = hosts.map(|host| of_function(description, host, id)).collect();
    if senders.is_empty() {
        bail!("no PCI host has this function on its buses");
    }
    Ok(senders)
}

/// Returns the item with this name, or else the only one whose path ends with it, with or without
/// addresses.
fn unique<'n, T>(items: impl Iterator<Item = (&'n str, T)>, end: &str) -> Result<Option<T>> {
    let has_end = |path: &str| {
        path.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with(['/', '.']))
    };
    let is_meant = |path: &str| has_end(path) || has_end(&place::without_addresses(path));
    let mut found: Vec<(&str, T)> = items.filter(|(path, _)| is_meant(path)).collect();
    if let Some(exact) = found.iter().position(|(path, _)| *path == end) {
        return Ok(Some(found.swap_remove(exact).1));
    }
    match found.as_slice() {
        [(one, _), (other, _)] => bail!("two nodes have this name: {one} and {other}"),
        [(one, _), (other, _), ..] => bail!("several nodes have this name: {one}, {other}, …"),
        _ => Ok(found.pop().map(|(_, item)| item)),
    }
}

/// Returns the device or bus outside PCI that a name means, even if it names no MSI controller.
fn device<'d>(description: &'d Description, name: &str) -> Result<Option<&'d PlatformDevice>> {
    let all = description.devices.iter().chain(&description.iommu_users);
    unique(all.map(|device| (device.id.as_str(), device)), name)
}

/// Returns `true` if a devicetree has this node.
fn exists(source: &Source, name: &str) -> bool {
    let place = place::origin(name);
    Excerpts::of(source, [&place]).text(&place).is_some()
}

/// Returns the sender of a node that refers to no controller.
fn without_parent(name: &str) -> Sender<'_> {
    Sender {
        name: name.to_owned(),
        owner: name,
        requester: None,
        status: Status::Enabled,
        msi: &NO_STATEMENTS,
        route: Err(NoRoute::NotDescribed),
        passes: Vec::new(),
        note: None,
        may_have_its_own: false,
        places: vec![place::origin(name)],
    }
}

/// Returns the device outside PCI, once for each controller that it refers to.
fn of_device<'d>(
    description: &'d Description,
    device: &'d PlatformDevice,
) -> Result<Vec<Sender<'d>>> {
    if device.role == Role::Bus {
        bail!("the node is a bus: name one of its requesters, such as \"{}[0x1]\"", device.id);
    }
    let mut routes = description.platform_routes(device);
    if routes.is_empty() {
        routes.push(Err(NoRoute::NotDescribed));
    }
    let passes = device.iommus.iter().map(|passed| (passed.iommu, passed.stream_id()));
    let sender = |route| Sender { route, passes: passes.clone().collect(), ..of_platform(device) };
    Ok(routes.into_iter().map(sender).collect())
}

/// Returns a requester of a bus other than PCI.
fn of_bus<'d>(description: &Description, bus: &'d PlatformDevice, id: RequesterId) -> Sender<'d> {
    let stream = bus.iommu.stream(id).map(|(iommu, stream)| (iommu, Some(stream)));
    Sender {
        name: format!("{}[{id}]", bus.id),
        requester: Some(id),
        route: description.route_by(&bus.msi, id),
        passes: stream.into_iter().collect(),
        ..of_platform(bus)
    }
}

fn of_platform(device: &PlatformDevice) -> Sender<'_> {
    let mut places = places(device.id.origin(""), &device.status, &device.msi);
    places.extend(device.iommus.iter().map(|passed| passed.origin.clone()));
    Sender {
        status: device.status.value,
        msi: &device.msi,
        places,
        ..without_parent(device.id.as_str())
    }
}

fn of_function<'d>(description: &Description, host: &'d PciHost, id: RequesterId) -> Sender<'d> {
    let (bus, device, function) = (id.pci_bus(), id.pci_device(), id.pci_function());
    let route = description.route(host, id);
    let stream = host.iommu.stream(id).map(|(iommu, stream)| (iommu, Some(stream)));
    let mask = host.msi.mask.as_ref().filter(|mask| mask.value & 0xffff != 0xffff);
    let may_have_its_own =
        route == Err(NoRoute::NotDescribed) && requesters::may_have_its_own(host);
    let note = if may_have_its_own {
        Some("firmware names no MSI controller; the bridge may have one of its own".to_owned())
    } else if !host.bridges.is_empty() {
        let note = "bridges below the host have maps of their own, which this does not follow";
        Some(note.to_owned())
    } else {
        let note = "functions whose requester IDs are equal under the mask share the DeviceID";
        mask.map(|mask| format!("{} {:#x}: {note}", mask.origin.item(), mask.value))
    };
    let mut places = places(host.id.origin(""), &host.status, &host.msi);
    places.push(host.buses.origin.clone());
    places.extend(host.config.iter().map(|config| config.origin.clone()));
    places.extend(host.iommu.map.iter().map(|entry| entry.origin.clone()));
    places.dedup_by(|one, other| one.place() == other.place());
    Sender {
        name: format!("{} {bus:02x}:{device:02x}.{function}", host.id),
        requester: Some(id),
        status: host.status.value,
        msi: &host.msi,
        route,
        passes: stream.into_iter().collect(),
        note,
        may_have_its_own,
        places,
        ..without_parent(host.id.as_str())
    }
}

/// Returns the places that state a requester.
fn places(node: Origin, status: &Fact<Status>, msi: &MsiRouting) -> Vec<Origin> {
    let entries = msi.map.iter().flatten().map(|entry| &entry.origin);
    let stated = entries.chain(msi.parents.iter().map(|parent| &parent.origin));
    let mut places = vec![node, status.origin.clone()];
    places.extend(stated.cloned());
    places.dedup_by(|one, other| one.place() == other.place());
    places
}

/// Returns each requester that has this DeviceID at a controller.
fn with_device_id(description: &Description, id: u32) -> Result<Vec<Sender<'_>>> {
    let mut senders = Vec::new();
    for requester in requesters::all(description) {
        for span in &requester.spans {
            let has_ids = description
                .controller(span.controller)
                .is_some_and(|to| to.kind.needs_device_id() && to.status.is_enabled());
            let offset = id.checked_sub(span.device_id_base.get());
            let Some(offset) = offset.filter(|offset| has_ids && *offset < span.length) else {
                continue;
            };
            let sender = RequesterId::new(span.rid_base.get().saturating_add(offset));
            let host = description.hosts.iter().find(|host| host.id == *requester.id);
            let device = description.devices.iter().find(|device| device.id == *requester.id);
            match (host, device) {
                (Some(host), _) => senders.push(of_function(description, host, sender)),
                (None, Some(device)) if device.role == Role::Device => {
                    senders.extend(of_device(description, device)?);
                }
                (None, Some(bus)) => senders.push(of_bus(description, bus, sender)),
                // A bridge with a map of its own.
                (None, None) => senders.push(Sender {
                    name: format!("{}[{sender}]", requester.id),
                    requester: Some(sender),
                    status: requester.status.value,
                    msi: requester.msi,
                    route: description.route_by(requester.msi, sender),
                    ..without_parent(requester.id.as_str())
                }),
            }
        }
    }
    if senders.is_empty() {
        bail!("no requester has this DeviceID");
    }
    Ok(senders)
}

fn unknown(description: &Description, name: &str) -> String {
    let names = description.devices.iter().map(|device| device.id.as_str());
    let end = Path::new(name).extension().and_then(OsStr::to_str);
    let is_file = end.is_some_and(|end| ["dtb", "dts", "dat", "aml"].contains(&end));
    let absent = if is_file { "no file has this name; " } else { "" };
    let meant = did_you_mean(name, names);
    format!(
        "{absent}{meant}a node that names an MSI controller, a function such as 01:00.0, or a \
         DeviceID such as 0x100 is expected; `doorbell explain SOURCE` lists them"
    )
}
