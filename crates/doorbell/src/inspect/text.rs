//! The contents of `doorbell inspect`, for people.

use super::report::{ControllerRow, DeviceRow, FindingRow, Inspection};
use crate::print::{Output, wrapped};
use crate::table::Table;
use std::io::{self, Write};

/// Prints an inspection.
pub(crate) fn print(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    writeln!(out, "{}", inspection.source)?;
    if let Some(model) = &inspection.model {
        writeln!(out, "model {model}")?;
    }
    print_cpus(out, inspection)?;
    print_gic(out, inspection)?;
    print_controllers(out, &inspection.controllers)?;
    print_devices(out, &inspection.devices)?;
    for FindingRow { severity, rule, place, message, help, .. } in &inspection.findings {
        writeln!(out, "{}", wrapped(&format!("{severity}[{rule}] {place}: {message}")))?;
        writeln!(out, "{}", wrapped(&format!("  help: {help}")))?;
    }
    Ok(())
}

fn print_cpus(out: &mut Output, inspection: &Inspection) -> io::Result<()> {
    let enabled = inspection.cpus.iter().filter(|cpu| cpu.enabled).count();
    writeln!(out, "{} CPUs, {enabled} enabled", inspection.cpus.len())
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

fn print_controllers(out: &mut Output, controllers: &[ControllerRow]) -> io::Result<()> {
    if controllers.is_empty() {
        return writeln!(out, "no MSI controllers");
    }
    let mut rows = Table::new(["controller", "kind", "enabled", "doorbell", "interrupts"])
        .with_identifiers([0, 1]);
    for controller in controllers {
        let ranges: Vec<String> = controller
            .ranges
            .iter()
            .map(|range| format!("{}+{}", range.first, range.count))
            .collect();
        rows.row([
            controller.id.clone(),
            controller.kind.clone(),
            yes_no(controller.enabled).to_owned(),
            addresses(&controller.doorbells),
            ranges.join(" "),
        ]);
    }
    writeln!(out, "{rows}")
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
            let span = |base: u32| match route.length {
                1 => format!("{base:#x}"),
                length => format!("{base:#x}+{length:#x}"),
            };
            add([
                &device.id,
                &device.kind,
                enabled,
                &span(route.rid_base),
                &span(route.device_id_base),
                &route.controller,
                &route.via,
                &route.iommus.join(" "),
            ]);
        }
    }
    writeln!(out, "{rows}")
}

/// The first doorbell, and the number of others.
pub(crate) fn addresses(doorbells: &[u64]) -> String {
    match doorbells {
        [] => String::new(),
        [only] => format!("{only:#x}"),
        [first, others @ ..] => format!("{first:#x} and {} more", others.len()),
    }
}

pub(crate) const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
