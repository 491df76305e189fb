//! `doorbell explain`: the way of a device's messages, as firmware describes it.

use crate::cli::ExplainArgs;
use crate::exit::Outcome;
use crate::print::{self, Output, wrapped};
use crate::wording::{counted, did_you_mean, number};
use anyhow::{Context, Result, bail};
use doorbell_inspection::inspect::{RangeRow, ranges, statement};
use doorbell_inspection::requesters;
use gic_firmware::{
    Description, IommuIndex, MsiRouting, NoRoute, PciHost, PlatformDevice, RequesterId, Role, Route,
};
use msi_types::explain::{Explanation, Fact, Obstacle, SetupFault};
use serde::Serialize;
use std::io::{self, Write};

/// A requester and the way of its messages.
#[derive(Debug, Serialize)]
struct Way {
    device: String,
    /// `null` for a device outside PCI that states its DeviceID itself.
    requester: Option<u32>,
    /// Property or table entry that names the controller.
    by: Option<String>,
    iommus: Vec<Passage>,
    controller: Option<String>,
    kind: Option<String>,
    device_id: Option<u32>,
    /// Addresses that receive messages; Direct LPI has one for each CPU.
    doorbells: Vec<u64>,
    /// SPIs that the controller may use; empty if it uses LPIs.
    interrupts: Vec<RangeRow>,
    /// INTIDs of the lines of a controller inside a host bridge.
    lines: Vec<u32>,
    /// Number of CPUs that can be the target.
    cpus: usize,
    /// A fact that firmware leaves open.
    note: Option<String>,
    explanation: Explanation,
}

/// An IOMMU that the messages pass.
#[derive(Debug, Serialize)]
struct Passage {
    iommu: String,
    enabled: bool,
    /// `null` if firmware states none.
    stream_id: Option<u32>,
}

/// Explains the requesters that the arguments name.
pub(crate) fn explain(args: &ExplainArgs) -> Result<Outcome> {
    let source = args.source.open()?;
    let ways = ways(&source.description, &args.device)
        .with_context(|| format!("{}: {:?}", source.name, args.device))?;
    print::rows(args.output.json, &ways, |out| {
        ways.iter().try_for_each(|way| print_way(out, way))
    })?;
    let is_open = ways.iter().all(|way| way.explanation.obstacle().is_none());
    Ok(if is_open { Outcome::Good } else { Outcome::Findings })
}

fn ways(description: &Description, name: &str) -> Result<Vec<Way>> {
    if let Ok(id) = number(name) {
        return with_device_id(description, id);
    }
    if let Some(device) = description.devices.iter().find(|one| one.id.as_str() == name) {
        return of_device(description, device);
    }
    if let Some((node, id)) = name.strip_suffix(']').and_then(|name| name.rsplit_once('['))
        && let Ok(id) = number(id)
        && let Some(bus) = description.devices.iter().find(|one| one.id.as_str() == node)
    {
        return Ok(vec![of_bus(description, bus, RequesterId::new(id))]);
    }
    let (node, function) = match name.rsplit_once(' ') {
        Some((node, function)) => (Some(node), function),
        None => (None, name),
    };
    let Some((segment, id)) = requesters::function_address(function) else {
        bail!(unknown(description, name));
    };
    let is_meant = |host: &&PciHost| {
        let stated = host.segment.as_ref().map(|stated| stated.value);
        let is_segment =
            segment.is_none_or(|segment| stated.is_none_or(|stated| stated == segment));
        let is_node = node.is_none_or(|node| host.id.as_str() == node);
        is_node && is_segment && host.buses.contains(id.pci_bus())
    };
    let hosts = description.hosts.iter().filter(is_meant);
    let ways: Vec<_> = hosts.map(|host| of_function(description, host, id)).collect();
    if ways.is_empty() {
        bail!("no PCI host has this function on its buses");
    }
    Ok(ways)
}

/// Explains the device outside PCI, or the requesters of the bus.
fn of_device(description: &Description, device: &PlatformDevice) -> Result<Vec<Way>> {
    if device.role == Role::Bus {
        bail!("the node is a bus: name one of its requesters, such as \"{}[0x1]\"", device.id);
    }
    let routes = description.platform_routes(device).into_iter();
    let mut ways: Vec<_> = routes
        .map(|route| Way::of(description, device.id.as_str(), None, &device.msi, route))
        .collect();
    for passed in &device.iommus {
        for way in &mut ways {
            way.pass(description, passed.iommu, passed.specifier.first().copied());
        }
    }
    Ok(ways)
}

/// Explains a requester of a bus other than PCI.
fn of_bus(description: &Description, bus: &PlatformDevice, id: RequesterId) -> Way {
    let route = description.route_by(&bus.msi, id);
    let name = format!("{}[{id}]", bus.id);
    let mut way = Way::of(description, &name, Some(id), &bus.msi, route);
    if let Some((iommu, stream)) = bus.iommu.stream(id) {
        way.pass(description, iommu, Some(stream));
    }
    way
}

fn of_function(description: &Description, host: &PciHost, id: RequesterId) -> Way {
    let (bus, device, function) = (id.pci_bus(), id.pci_device(), id.pci_function());
    let name = format!("{} {bus:02x}:{device:02x}.{function}", host.id);
    let route = description.route(host, id);
    let mut way = Way::of(description, &name, Some(id), &host.msi, route);
    if route == Err(NoRoute::NotDescribed) && requesters::may_have_its_own(host) {
        way.explanation = Explanation::new();
        way.note =
            Some("firmware names no MSI controller; the bridge may have one of its own".to_owned());
    } else if !host.bridges.is_empty() {
        let note = "bridges below the host have maps of their own, which this does not follow";
        way.note = Some(note.to_owned());
    } else if let Some(mask) = host.msi.mask.as_ref().filter(|mask| mask.value & 0xffff != 0xffff) {
        let note = "functions whose requester IDs are equal under the mask share the DeviceID";
        way.note = Some(format!("{} {:#x}: {note}", mask.origin.item(), mask.value));
    }
    if let Some((iommu, stream)) = host.iommu.stream(id) {
        way.pass(description, iommu, Some(stream));
    }
    way
}

/// Explains each requester that has this DeviceID at a controller.
fn with_device_id(description: &Description, id: u32) -> Result<Vec<Way>> {
    let mut ways = Vec::new();
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
                (Some(host), _) => ways.push(of_function(description, host, sender)),
                (None, Some(device)) if device.role == Role::Device => {
                    ways.extend(of_device(description, device)?);
                }
                (None, Some(bus)) => ways.push(of_bus(description, bus, sender)),
                // A bridge with a map of its own.
                (None, None) => {
                    let route = description.route_by(requester.msi, sender);
                    let name = format!("{}[{sender}]", requester.id);
                    ways.push(Way::of(description, &name, Some(sender), requester.msi, route));
                }
            }
        }
    }
    if ways.is_empty() {
        bail!("no requester has this DeviceID");
    }
    Ok(ways)
}

impl Way {
    fn of(
        description: &Description,
        device: &str,
        requester: Option<RequesterId>,
        msi: &MsiRouting,
        route: Result<Route, NoRoute>,
    ) -> Self {
        let explanation = Explanation::new();
        let mut way = Self {
            device: device.to_owned(),
            requester: requester.map(RequesterId::get),
            by: None,
            iommus: Vec::new(),
            controller: None,
            kind: None,
            device_id: None,
            doorbells: Vec::new(),
            interrupts: Vec::new(),
            lines: Vec::new(),
            cpus: 0,
            note: None,
            explanation,
        };
        let route = match route {
            Ok(route) => route,
            Err(why) => {
                let fault = fault(why, requester.unwrap_or_default());
                way.explanation = explanation.with_obstacle(Obstacle::Setup(fault));
                return way;
            }
        };
        way.by = Some(statement(msi, route.via));
        let Some(controller) = description.controller(route.controller) else { return way };
        way.controller = Some(controller.id.to_string());
        way.kind = Some(controller.kind.to_string());
        way.doorbells = match controller.doorbell(route.device_id) {
            Some(doorbell) => vec![doorbell],
            None => description.doorbells(controller),
        };
        way.interrupts = controller.ranges.iter().map(|range| RangeRow::of(range.value)).collect();
        way.lines = controller.lines.iter().map(|line| line.intid.get()).collect();
        way.cpus = description.enabled_cpus().count();
        let doorbell = way.doorbells.first().map(|doorbell| Fact::Doorbell(*doorbell));
        way.explanation = doorbell.into_iter().fold(explanation, Explanation::with_fact);
        if controller.kind.needs_device_id() {
            way.device_id = Some(route.device_id.get());
            way.explanation = way.explanation.with_fact(Fact::Sender(route.device_id));
        }
        way
    }

    fn pass(&mut self, description: &Description, iommu: IommuIndex, stream: Option<u32>) {
        // The bridge takes the message before an IOMMU translates it.
        if !self.lines.is_empty() {
            return;
        }
        self.iommus.extend(description.iommu(iommu).map(|iommu| Passage {
            iommu: iommu.id.to_string(),
            enabled: iommu.status.is_enabled(),
            stream_id: stream,
        }));
    }
}

/// Returns the reason why firmware's description gives a requester no controller.
pub(crate) const fn fault(why: NoRoute, requester: RequesterId) -> SetupFault {
    match why {
        NoRoute::NotDescribed => SetupFault::NoController { requester },
        NoRoute::Unmapped(requester) => SetupFault::OutsideMap { requester },
        NoRoute::Disabled(_) => SetupFault::ControllerDisabled,
        _ => SetupFault::BrokenEntry { requester },
    }
}

fn unknown(description: &Description, name: &str) -> String {
    if let Some(host) = description.hosts.iter().find(|host| host.id.as_str() == name) {
        return format!("the node is a PCI host: name a function, such as \"{} 00:01.0\"", host.id);
    }
    let names = description.devices.iter().map(|device| device.id.as_str());
    format!(
        "{}a node that names an MSI controller, a function such as 01:00.0, or a DeviceID such as \
         0x100 is expected; `doorbell inspect` lists them",
        did_you_mean(name, names)
    )
}

fn print_way(out: &mut Output, way: &Way) -> io::Result<()> {
    let requester = way.requester.map(|id| format!("requester {id:#06x}"));
    let by = way.by.as_ref().map(|by| format!("by {by}"));
    let from: Vec<_> = [Some(way.device.clone()), requester, by].into_iter().flatten().collect();
    writeln!(out, "{}", wrapped(&from.join(", ")))?;
    for Passage { iommu, enabled, stream_id } in &way.iommus {
        let stream = stream_id.map_or_else(String::new, |id| format!("StreamID {id:#x} at "));
        let state = if *enabled { "" } else { " (disabled)" };
        writeln!(out, "{}", wrapped(&format!("  passes {stream}{iommu}{state}")))?;
    }
    if let (Some(controller), Some(kind)) = (&way.controller, &way.kind) {
        writeln!(out, "{}", wrapped(&format!("  controller {controller} ({kind})")))?;
        let interrupts = match way.interrupts.as_slice() {
            [] if ["its", "direct-lpi"].contains(&kind.as_str()) => "an LPI".to_owned(),
            [] if way.lines.is_empty() => "an SPI".to_owned(),
            [] => {
                let lines: Vec<_> = way.lines.iter().map(ToString::to_string).collect();
                format!("a vector that the bridge signals by INTID {}", lines.join(" or "))
            }
            some => format!("an SPI of INTIDs {}", ranges(some)),
        };
        let cpus = match way.cpus {
            0 => "but the description enables no CPU".to_owned(),
            cpus => format!("at any of {}", counted(cpus, "CPU")),
        };
        let target = format!("  target: {interrupts}, {cpus}");
        writeln!(out, "{}", wrapped(&target))?;
    }
    if let Some(note) = &way.note {
        writeln!(out, "{}", wrapped(&format!("  note: {note}")))?;
    }
    for line in way.explanation.to_string().lines() {
        writeln!(out, "{}", wrapped(&format!("  {line}")))?;
    }
    Ok(())
}
