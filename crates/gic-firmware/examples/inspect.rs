//! Prints the interrupt controllers, MSI routes and findings of devicetree blobs: `inspect
//! FILE.dtb…`.

use gic_firmware::{Description, RouteSpan, devicetree};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    for file in std::env::args().skip(1) {
        print(&file, &devicetree::parse_and_check(&std::fs::read(&file)?)?);
    }
    Ok(())
}

fn print(file: &str, description: &Description) {
    println!("{file}: {}", description.model.as_ref().map_or("?", |model| model.value.as_str()));
    println!("  {} CPUs, {} enabled", description.cpus.len(), description.enabled_cpus().count());
    if let Some(gic) = &description.gic {
        println!(
            "  {} {} {}: distributor {}",
            gic.version.value, gic.id, gic.status.value, gic.distributor.value
        );
        for region in &gic.redistributors {
            println!("    redistributors {}", region.value);
        }
    }
    for controller in &description.controllers {
        println!(
            "  {} {} {}, doorbells {:x?}, ranges {:?}",
            controller.kind,
            controller.id,
            controller.status.value,
            description.doorbells(controller),
            controller.ranges.iter().map(|range| range.value).collect::<Vec<_>>(),
        );
    }
    let name =
        |index| description.controller(index).map_or("?", |controller| controller.id.as_str());
    let print_spans = |spans: Vec<RouteSpan>| {
        for span in spans {
            let (to, via) = (name(span.controller), span.via);
            println!(
                "    {} + {:#x} -> {to} from {} on, by {via}",
                span.rid_base, span.length, span.device_id_base
            );
        }
    };
    for host in &description.hosts {
        println!("  PCI {} {}, buses {:?}", host.id, host.status.value, host.buses.value);
        print_spans(description.host_spans(host).collect());
    }
    for device in &description.devices {
        println!("  {} {}", device.id, device.status.value);
        print_spans(description.device_spans(device));
    }
    for finding in &description.findings {
        println!("  {finding}");
    }
}
