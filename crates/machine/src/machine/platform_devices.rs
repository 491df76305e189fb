//! Platform devices: everything outside of PCI that firmware leads to a controller.

use super::{ControllerChoice, Device, Refusal, Space};
use crate::bus::{Bus, Doorbells, Overlap};
use crate::platform_device::{self, PlatformDevice};
use gic_firmware::{Description, MsiRouting, Region, Role, Route};
use msi_types::RequesterId;
use std::sync::Arc;

/// Messages of a device: this many, and up to six more.
const SLOTS: u16 = 2;

/// Requesters on a bus without a map.
const UNMAPPED: [u32; 3] = [1, 2, 3];

/// A device, planned.
pub(super) struct DevicePlan {
    name: String,
    route: Route,
    registers: Region,
    slots: u16,
}

/// Plans every enabled device that takes part: once, or on a bus that is not PCI (`fsl-mc`) several
/// times.
pub(super) fn plan(
    description: &Description,
    choice: ControllerChoice,
    space: &mut Space,
) -> Result<Vec<DevicePlan>, Refusal> {
    let mut plans: Vec<DevicePlan> = Vec::new();
    for device in description.devices.iter().filter(|device| device.status.is_enabled()) {
        let routes: Vec<_> = match device.role {
            Role::Bus => {
                let routes = requesters(&device.msi).into_iter();
                routes
                    .map(|id| (format!("{}[{id}]", device.id), description.route_by(&device.msi, id)))
                    .collect()
            }
            // A device names several controllers in its order of preference.
            Role::Device => {
                let mut routes = description.platform_routes(device).into_iter();
                let route = routes.find(|route| choice.controller(description, *route).is_some());
                route.into_iter().map(|route| (device.id.to_string(), route)).collect()
            }
        };
        for (name, route) in routes {
            let Some((route, _)) = choice.controller(description, route) else { continue };
            let slots = SLOTS + u16::try_from(plans.len() % 4).unwrap_or(0) * 2;
            let registers = registers(
                &device.registers.iter().map(|region| region.value).collect::<Vec<_>>(),
                &name,
                space,
            )?;
            plans.push(DevicePlan { name, route, registers, slots });
        }
    }
    Ok(plans)
}

/// Who is on a bus that is not PCI: one for each line of its map; without one a few, whose IDs are their DeviceIDs.
fn requesters(routing: &MsiRouting) -> Vec<RequesterId> {
    match &routing.map {
        Some(map) => map.iter().map(|entry| entry.rid_base).collect(),
        None => UNMAPPED.map(RequesterId::new).to_vec(),
    }
}

/// In the device's own registers if they are large enough and nobody else's, else somewhere unused.
fn registers(stated: &[Region], name: &str, space: &mut Space) -> Result<Region, Refusal> {
    let own = stated.iter().find(|region| region.size() >= platform_device::SIZE);
    let own = own.and_then(|region| Region::new(region.base(), platform_device::SIZE));
    match own.filter(|region| space.try_claim(name, *region)) {
        Some(region) => Ok(region),
        None => space.invent("a platform device", name, platform_device::SIZE),
    }
}

/// Builds the devices and lets them answer on the bus.
pub(super) fn build(
    plans: Vec<DevicePlan>,
    doorbells: &Arc<Doorbells>,
    bus: &mut Bus,
) -> Result<Vec<Device>, Overlap> {
    let mut devices = Vec::new();
    for DevicePlan { name, route, registers, slots } in plans {
        let hardware = Arc::new(PlatformDevice::new(route.device_id, slots, Arc::clone(doorbells)));
        bus.attach(&name, registers, Arc::clone(&hardware) as _)?;
        devices.push(Device {
            name,
            controller: route.controller,
            id: route.device_id,
            base: registers.base(),
            hardware,
        });
    }
    Ok(devices)
}
