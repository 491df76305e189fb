//! Prints the contents of `doorbell inspect` for people.

use crate::print::{Output, wrapped};
use crate::table::Table;
use crate::wording::counted;
use doorbell_inspection::coherence;
use doorbell_inspection::inspect::{
    CapacityRow, ControllerRow, DeviceRow, FindingRow, Inspection, RouteRow, SecondaryGicRow,
    addresses, first_names, yes_no,
};
use gic_firmware::Coherence;
use std::collections::BTreeSet;
use std::io::{self, Write};

/// Prints an inspection.
pub(crate) fn print(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    writeln!(out, "{}", inspection.source)?;
    if let Some(model) = &inspection.model {
        writeln!(out, "model {model}")?;
    }
    if let Some(name) = &inspection.hypervisor {
        writeln!(out, "guest of a hypervisor: {name}")?;
    }
    if inspection.psci.as_deref() == Some("hvc") {
        writeln!(out, "PSCI by hvc: EL2 belongs to firmware or a hypervisor")?;
    }
    print_cpus(out, inspection)?;
    print_gic(out, inspection)?;
    print_secondary_gics(out, &inspection.secondary_gics)?;
    print_controllers(out, &inspection.controllers)?;
    print_coherence(out, inspection)?;
    print_capacity(out, &inspection.capacity)?;
    print_devices(out, &inspection.devices)?;
    print_streams(out, &inspection.devices)?;
    for sentence in inspection.omitted.sentences() {
        writeln!(out, "{sentence}")?;
    }
    for FindingRow { severity, rule, place, message, help, .. } in &inspection.findings {
        writeln!(out, "{}", wrapped(&format!("{severity}[{rule}] {place}: {message}")))?;
        writeln!(out, "{}", wrapped(&format!("  help: {help}")))?;
    }
    Ok(())
}

fn print_cpus(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    let Inspection { cpus, omitted, enabled_cpus, .. } = inspection;
    writeln!(out, "{}, {enabled_cpus} enabled", counted(cpus.len() + omitted.cpus, "CPU"))
}

fn print_gic(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    let Some(gic) = &inspection.gic else {
        return writeln!(out, "no GIC");
    };
    writeln!(out, "GICv{} {}: distributor at {:#x}", gic.version, gic.id, gic.distributor)?;
    for region in &gic.redistributors {
        let stride =
            region.stride.map_or_else(String::new, |stride| format!(", stride {stride:#x}"));
        writeln!(out, "  redistributors at {:#x}, {:#x} bytes{stride}", region.base, region.size)?;
    }
    Ok(())
}

/// Prints the secondary GICs, each with the interrupt that it raises at another controller.
fn print_secondary_gics(out: &mut Output, gics: &[SecondaryGicRow]) -> io::Result<()> {
    if gics.is_empty() {
        return Ok(());
    }
    let header = ["secondary GIC", "version", "enabled", "distributor", "INTID", "at"];
    let mut rows = Table::new(header).with_identifiers([0, 5]);
    for SecondaryGicRow { gic, enabled, parent } in gics {
        let intid = parent.as_ref().map(|parent| {
            parent.intid.map_or_else(|| "not a GIC's".to_owned(), |intid| intid.to_string())
        });
        let at = parent.as_ref().map_or("none", |parent| &parent.controller);
        rows.row([
            gic.id.clone(),
            format!("GICv{}", gic.version),
            yes_no(*enabled).to_owned(),
            format!("{:#x}", gic.distributor),
            intid.unwrap_or_default(),
            at.to_owned(),
        ]);
    }
    writeln!(out, "{rows}")
}

fn print_controllers(out: &mut Output, controllers: &[ControllerRow]) -> io::Result<()> {
    if controllers.is_empty() {
        return writeln!(out, "no MSI controllers");
    }
    let mut rows = Table::new([
        "controller",
        "kind",
        "enabled",
        "driven",
        "isolates",
        "doorbell",
        "interrupts",
    ])
    .with_identifiers([0, 1]);
    for controller in controllers {
        rows.row([
            controller.id.clone(),
            controller.kind.clone(),
            yes_no(controller.enabled).to_owned(),
            yes_no(controller.driven).to_owned(),
            yes_no(controller.isolates).to_owned(),
            addresses(&controller.doorbells),
            controller.interrupts(),
        ]);
    }
    writeln!(out, "{rows}")
}

/// Names the controllers whose memory accesses firmware states to be not coherent, whatever their
/// registers say.
fn print_coherence(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    let gic = inspection.gic.iter().map(|gic| (&gic.id, gic.coherence));
    let controllers = inspection.controllers.iter().map(|one| (&one.id, one.coherence));
    let stated = gic.chain(controllers).filter(|(_, of)| *of == coherence(Coherence::NonCoherent));
    let names: Vec<_> = stated.map(|(id, _)| id).collect();
    if names.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", wrapped(&format!("not coherent with the caches: {}", first_names(&names))))
}

/// Prints the available capacity, followed in parentheses by the capacity that devices need.
fn print_capacity(out: &mut Output, capacity: &[CapacityRow]) -> io::Result<()> {
    if capacity.is_empty() {
        return Ok(());
    }
    let header = ["room at", "interrupts", "DeviceID bits", "EventID bits"];
    let mut rows = Table::new(header).with_identifiers([0]);
    for row in capacity {
        rows.row([row.controller.clone(), row.room(), row.device_ids(), row.event_ids()]);
    }
    writeln!(out, "{rows}")
}

/// Formats a single ID as `0x10`, or a range as first ID and length: `0x10+0x8`.
fn span(base: u32, length: u32) -> String {
    match length {
        1 => format!("{base:#x}"),
        length => format!("{base:#x}+{length:#x}"),
    }
}

fn print_devices(out: &mut Output, devices: &[DeviceRow]) -> io::Result<()> {
    if devices.is_empty() {
        return writeln!(out, "no device names an MSI controller");
    }
    let passes_iommu =
        |device: &DeviceRow| device.routes.iter().any(|route| !route.iommus.is_empty());
    let header =
        ["device", "kind", "enabled", "requesters", "DeviceIDs", "controller", "by", "through"];
    let columns = if devices.iter().any(passes_iommu) { header.len() } else { header.len() - 1 };
    let mut rows = Table::new(header.into_iter().take(columns)).with_identifiers([0, 1, 5, 6, 7]);
    let mut add = |cells: [&str; 8]| {
        rows.row(cells.into_iter().take(columns));
    };
    for device in devices {
        let enabled = yes_no(device.enabled);
        if device.routes.is_empty() {
            add([&device.id, &device.kind, enabled, "", "", "none", "", ""]);
        }
        for route in &device.routes {
            add([
                &device.id,
                &device.kind,
                enabled,
                &span(route.rid_base, route.length),
                &span(route.device_id_base, route.length),
                &route.controller,
                &route.via,
                &through(route),
            ]);
        }
    }
    writeln!(out, "{rows}")
}

/// Returns the IOMMUs on a route, without duplicates.
fn through(route: &RouteRow) -> String {
    let mut known = BTreeSet::new();
    let names = route.streams.iter().map(|stream| stream.iommu.as_str());
    let names: Vec<_> = names.filter(|name| known.insert(*name)).collect();
    first_names(&names)
}

/// Prints which requesters pass through which IOMMU, without duplicates.
fn print_streams(out: &mut Output, devices: &[DeviceRow]) -> io::Result<()> {
    let mut rows = Table::new(["device", "requesters", "StreamIDs", "IOMMU", "enabled"]);
    let mut shown = BTreeSet::new();
    for device in devices {
        let routed = device.routes.iter().flat_map(|route| &route.streams);
        for stream in routed.chain(&device.streams) {
            let cells = [
                device.id.clone(),
                span(stream.rid_base, stream.length),
                stream.stream_id_base.map_or_else(String::new, |base| span(base, stream.length)),
                stream.iommu.clone(),
                yes_no(stream.enabled).to_owned(),
            ];
            if shown.insert(cells.clone()) {
                rows.row(cells);
            }
        }
    }
    if shown.is_empty() {
        return Ok(());
    }
    writeln!(out, "{}", rows.with_identifiers([0, 3]))
}
