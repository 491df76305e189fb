//! The contents of `doorbell inspect`, for people.

use super::report::{ControllerRow, DeviceRow, Inspection};
use crate::print::table;

/// Prints an inspection on standard output.
pub(crate) fn print(inspection: &Inspection) {
    println!("{}", inspection.source);
    if let Some(model) = &inspection.model {
        println!("model {model}");
    }
    print_cpus(inspection);
    print_gic(inspection);
    print_controllers(&inspection.controllers);
    print_devices(&inspection.devices);
    for finding in &inspection.findings {
        println!("{}[{}] {}: {}", finding.severity, finding.rule, finding.place, finding.message);
        println!("  help: {}", finding.help);
    }
}

fn print_cpus(inspection: &Inspection) {
    let enabled = inspection.cpus.iter().filter(|cpu| cpu.enabled).count();
    println!("{} CPUs, {enabled} enabled", inspection.cpus.len());
}

fn print_gic(inspection: &Inspection) {
    let Some(gic) = &inspection.gic else {
        println!("no GIC");
        return;
    };
    println!("GICv{} {}: distributor at {:#x}", gic.version, gic.id, gic.distributor);
    for region in &gic.redistributors {
        let stride = region.stride.map_or_else(String::new, |stride| format!(", stride {stride:#x}"));
        println!("  redistributors at {:#x}, {:#x} bytes{stride}", region.base, region.size);
    }
}

fn print_controllers(controllers: &[ControllerRow]) {
    if controllers.is_empty() {
        println!("no MSI controllers");
        return;
    }
    let mut rows = table(["controller", "kind", "enabled", "doorbell", "interrupts"]);
    for controller in controllers {
        let doorbells: Vec<String> =
            controller.doorbells.iter().map(|address| format!("{address:#x}")).collect();
        let ranges: Vec<String> =
            controller.ranges.iter().map(|range| format!("{}+{}", range.first, range.count)).collect();
        rows.add_row([
            controller.id.clone(),
            controller.kind.clone(),
            yes_no(controller.enabled).to_owned(),
            doorbells.join(" "),
            ranges.join(" "),
        ]);
    }
    println!("{rows}");
}

fn print_devices(devices: &[DeviceRow]) {
    if devices.is_empty() {
        println!("no device names an MSI controller");
        return;
    }
    let mut rows = table(["device", "kind", "enabled", "requesters", "DeviceIDs", "controller", "by"]);
    for device in devices {
        let enabled = yes_no(device.enabled);
        if device.routes.is_empty() {
            rows.add_row([&device.id, &device.kind, enabled, "", "", "none", ""]);
        }
        for route in &device.routes {
            let span = |base: u32| match route.length {
                1 => format!("{base:#x}"),
                length => format!("{base:#x}+{length:#x}"),
            };
            rows.add_row([
                &device.id,
                &device.kind,
                enabled,
                &span(route.rid_base),
                &span(route.device_id_base),
                &route.controller,
                &route.via,
            ]);
        }
    }
    println!("{rows}");
}

const fn yes_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}
