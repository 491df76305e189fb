//! Compares the routes and the isolation of PCI hosts, bridges and devices.

use super::difference::{Difference, Differences, Section};
use super::object::{self, Object};
use super::objects::{AllLabels, keys, region};
use super::pairs::pair;
use super::sides::{Side, Two};
use super::spans::{self, Change, Span};
use gic_firmware::{
    ControllerIndex, ControllerKind, Description, IommuIndex, IommuRouting, MsiRouting, PciHost,
    PlatformDevice, Role, RouteSpan,
};
use std::ops::Range;

/// A requester, or a bus of requesters.
struct Requester {
    object: Object,
    /// Requester IDs of a host's buses.
    buses: Option<Range<u64>>,
    routes: Vec<Span>,
    streams: Vec<Span>,
}

pub(super) fn compare(two: Two<'_>, labels: &AllLabels, found: &mut Differences) {
    let is_same_form = two.is_same_form();
    let (old, new) = (&two.old.description, &two.new.description);
    let (controllers, iommus) = (&labels.controllers, &labels.iommus);
    let here = Side { description: old, controllers: &controllers.old, iommus: &iommus.old };
    let there = Side { description: new, controllers: &controllers.new, iommus: &iommus.new };
    let (mut before, mut after) = (all(here, is_same_form), all(there, is_same_form));
    let take = |list: &mut Vec<Requester>| -> Vec<Object> {
        list.iter_mut().map(|one| std::mem::take(&mut one.object)).collect()
    };
    let (old, new) = (take(&mut before), take(&mut after));
    let pairs = pair(&old, &new);
    for section in [Section::Routes, Section::Isolation] {
        for (one, other) in &pairs {
            let objects = (one.and_then(|at| old.get(at)), other.and_then(|at| new.get(at)));
            let is_pair = objects.0.is_some() && objects.1.is_some();
            if section == Section::Routes || is_pair {
                let has_names = is_same_form && section == Section::Routes;
                object::compare(section, objects.0, objects.1, has_names, found);
            }
            let (Some(one), Some(other)) =
                (one.and_then(|at| before.get(at)), other.and_then(|at| after.get(at)))
            else {
                continue;
            };
            let limits = if is_same_form { None } else { common(one, other) };
            let (Some(object), Some(was)) = (objects.1, objects.0) else { continue };
            for change in changes(section, one, other, limits) {
                found.add(difference(section, object, was, &change, (here, there)));
            }
        }
    }
}

/// Returns the requester IDs of buses that both hosts have.
fn common(one: &Requester, other: &Requester) -> Option<Range<u64>> {
    let (one, other) = (one.buses.as_ref()?, other.buses.as_ref()?);
    Some(one.start.max(other.start)..one.end.min(other.end))
}

fn changes(
    section: Section,
    one: &Requester,
    other: &Requester,
    limits: Option<Range<u64>>,
) -> Vec<Change> {
    let (one, other) = (spans_of(section, one), spans_of(section, other));
    let Some(limits) = limits else { return spans::changes(one, other) };
    let within = |spans: &[Span]| -> Vec<Span> {
        spans.iter().filter_map(|span| span.within(&limits)).collect()
    };
    spans::changes(&within(one), &within(other))
}

fn spans_of(section: Section, requester: &Requester) -> &[Span] {
    if section == Section::Routes { &requester.routes } else { &requester.streams }
}

fn difference(
    section: Section,
    object: &Object,
    was: &Object,
    change: &Change,
    (here, there): (Side<'_>, Side<'_>),
) -> Difference {
    let last = change.end.saturating_sub(1);
    let text = |side: Side<'_>, span: Span| {
        let (id, name) = if section == Section::Routes {
            (side.controller(ControllerIndex::new(span.index)), "DeviceID")
        } else {
            (side.iommu(IommuIndex::new(span.index)), "StreamID")
        };
        let target = id.map_or_else(String::new, |(_, id)| id.to_string());
        let is_one = change.first == last;
        match span.base {
            None => target,
            Some(base) if is_one => format!("{name} {base:#x} at {target}"),
            Some(base) => {
                let last = base.saturating_add(last - change.first);
                format!("{name}s {base:#x} to {last:#x} at {target}")
            }
        }
    };
    let field = if change.first == last {
        format!("requester {last:#06x}")
    } else {
        format!("requesters {:#06x} to {last:#06x}", change.first)
    };
    Difference {
        section,
        object: object.name.clone(),
        was: (object.name != was.name).then(|| was.name.clone()),
        field: Some(field),
        before: change.before.map(|span| text(here, span)),
        after: change.after.map(|span| text(there, span)),
    }
}

fn all(side: Side<'_>, is_same_form: bool) -> Vec<Requester> {
    let description = side.description;
    let hosts = description.hosts.iter().flat_map(|one| {
        let bridges = one.bridges.iter().map(move |bridge| {
            let mut object = Object::new(&bridge.id, keys("bridge", &bridge.id, None));
            object.add(Section::Routes, "status", &bridge.status.value);
            add_mask(&mut object, &bridge.msi);
            let routes = routes(side, description.bridge_spans(bridge));
            Requester { object, buses: None, routes, streams: Vec::new() }
        });
        std::iter::once(host(side, one, is_same_form)).chain(bridges)
    });
    hosts.chain(description.devices.iter().map(|one| device(side, one, is_same_form))).collect()
}

fn host(side: Side<'_>, host: &PciHost, is_same_form: bool) -> Requester {
    const SECTION: Section = Section::Routes;
    let base = host.config.as_ref().map(|config| config.region().base());
    let mut object = Object::new(&host.id, keys("host", &host.id, base));
    object.add(SECTION, "status", &host.status.value);
    let buses = host.buses.value;
    object.add(SECTION, "buses", &format!("{:#04x} to {:#04x}", buses.first, buses.last));
    if let Some(config) = &host.config {
        object.add(SECTION, "configuration space", &region(config.region(), is_same_form));
    }
    if let Some(segment) = host.segment.as_ref().filter(|_| is_same_form) {
        object.add(SECTION, "segment", &segment.value);
    }
    // Tables state these windows in AML.
    for window in host.dma_windows.iter().filter(|_| is_same_form) {
        let (bus, cpu) = (window.bus_base(), region(window.cpu(), true));
        let moved = format!("{cpu} at bus address {bus:#x}");
        let text = if bus == window.cpu().base() { cpu } else { moved };
        object.add(SECTION, window.origin.item(), &text);
    }
    add_mask(&mut object, &host.msi);
    if let Some(mask) = &host.iommu.mask {
        object.add(Section::Isolation, "iommu-map-mask", &format!("{:#x}", mask.value));
    }
    let routes = routes(side, side.description.host_spans(host));
    add_isolation(&mut object, side.description, &routes);
    let buses = u64::from(buses.first) << 8..(u64::from(buses.last) + 1) << 8;
    Requester { object, buses: Some(buses), routes, streams: streams(side, &host.iommu) }
}

fn device(side: Side<'_>, device: &PlatformDevice, is_same_form: bool) -> Requester {
    let address = device.registers.first().map(|region| region.base());
    let mut object = Object::new(&device.id, keys("device", &device.id, address));
    object.add(Section::Routes, "status", &device.status.value);
    let spans = device_routes(side, device);
    add_isolation(&mut object, side.description, &spans);
    for passed in &device.iommus {
        let Some((label, id)) = side.iommu(passed.iommu) else { continue };
        let cells: Vec<String> = passed.specifier.iter().map(|cell| format!("{cell:#x}")).collect();
        let text = match cells.as_slice() {
            [] => id.to_string(),
            cells => format!("StreamID {} at {id}", cells.join(" ")),
        };
        object.add_keyed(Section::Isolation, "IOMMU", format!("{label} {cells:?}"), text);
    }
    let is_bus = device.role == Role::Bus;
    for span in spans.iter().filter(|_| !is_bus) {
        let Some((label, id)) = side.controller(ControllerIndex::new(span.index)) else { continue };
        let device_id =
            span.base.map_or_else(String::new, |base| format!("DeviceID {base:#x} at "));
        let key = format!("{label} {:?}", span.base);
        if !is_same_form {
            // Devices have unrelated names in the two forms, but their messages are the same.
            object.keys.push(format!("messages {key}"));
        }
        object.add_keyed(Section::Routes, "messages", key, format!("{device_id}{id}"));
    }
    if is_bus {
        add_mask(&mut object, &device.msi);
    }
    let routes = if is_bus { spans } else { Vec::new() };
    Requester { object, buses: None, routes, streams: streams(side, &device.iommu) }
}

fn device_routes(side: Side<'_>, device: &PlatformDevice) -> Vec<Span> {
    routes(side, side.description.device_spans(device).into_iter())
}

fn add_mask(object: &mut Object, msi: &MsiRouting) {
    if let Some(mask) = &msi.mask {
        object.add(Section::Routes, "msi-map-mask", &format!("{:#x}", mask.value));
    }
}

/// Adds whether the requester's controllers identify devices by an ID that devices cannot choose.
fn add_isolation(object: &mut Object, description: &Description, routes: &[Span]) {
    let isolates = |span: &Span| {
        let controller = description.controller(ControllerIndex::new(span.index));
        controller.is_some_and(|one| one.kind == ControllerKind::Its && one.pre_its.is_none())
    };
    let text = match routes {
        [] => "no controller",
        all if all.iter().all(isolates) => "isolated by DeviceID",
        _ => "not isolated",
    };
    object.add(Section::Isolation, "messages", &text);
}

fn routes(side: Side<'_>, spans: impl Iterator<Item = RouteSpan>) -> Vec<Span> {
    let of = |span: RouteSpan| {
        let (label, _) = side.controller(span.controller)?;
        let needs_id = side.description.controller(span.controller)?.kind.needs_device_id();
        let first = u64::from(span.rid_base.get());
        Some(Span {
            first,
            end: first + u64::from(span.length),
            label,
            index: span.controller.get(),
            base: needs_id.then(|| u64::from(span.device_id_base.get())),
        })
    };
    spans.filter_map(of).collect()
}

fn streams(side: Side<'_>, routing: &IommuRouting) -> Vec<Span> {
    let entries = routing.map.iter().filter_map(|entry| {
        let index = entry.iommu?;
        let (label, _) = side.iommu(index)?;
        let first = u64::from(entry.rid_base.get());
        Some(Span {
            first,
            end: first + u64::from(entry.length),
            label,
            index: index.get(),
            base: entry.stream_id_base.map(u64::from),
        })
    });
    entries.collect()
}
