//! Looks up the MSI controller for a PCI function in a devicetree. This board has a pre-ITS, so the
//! message address encodes the DeviceID.

use gic_firmware::{ControllerKind, devicetree};
use msi_types::{DeviceId, RequesterId};
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let blob = include_bytes!("../tests/data/pre-its.dtb");
    let machine = devicetree::parse(blob)?;
    let host = machine.hosts.first().ok_or("no PCI host bridge")?;
    let route = machine.route(host, RequesterId::pci(1, 0, 0))?;
    let controller = machine.controller(route.controller).ok_or("a route refers to the list")?;
    println!("01:00.0 rings {} with DeviceID {}", controller.id, route.device_id);
    assert_eq!(controller.kind, ControllerKind::Its);
    assert_eq!(route.device_id, DeviceId::new(0x100));
    assert_eq!(controller.doorbell(route.device_id), Some(0x5800_0400));
    for finding in &machine.findings {
        println!("{finding}");
    }
    Ok(())
}
