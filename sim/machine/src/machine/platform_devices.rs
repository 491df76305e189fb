//! Platform devices: all devices outside PCI that firmware routes to an MSI controller.

use super::{AddressPlan, BuildOptions, ControllerChoice, Population, Refusal};
use doorbell_hardware::bus::{Bus, Doorbells, Overlap};
use doorbell_hardware::platform_device::{self, PlatformDevice, PlatformDeviceConfig};
use gic_firmware::{Description, MsiRouting, NoRoute, NodeId, Region, Role, Route};
use msi_types::{RequesterId, Trigger};
use std::sync::Arc;

/// Minimum number of message slots of a device. A device may have up to six more.
const SLOTS: u16 = 2;

/// The compatible string of a device that sends level messages.
const LEVEL_SOURCE: &str = "doorbell,level-source";

/// Requester IDs of the devices on a bus without a map.
const UNMAPPED: [u32; 3] = [1, 2, 3];

/// A planned device.
pub(crate) struct DevicePlan {
    /// The device's node, which also names the bus of several devices.
    pub(super) node: NodeId,
    pub(crate) name: String,
    pub(crate) route: Route,
    pub(crate) registers: Region,
    pub(crate) config: PlatformDeviceConfig,
}

/// Plans all enabled devices that take part, but at most `room`. For a bus other than PCI
/// (`fsl-mc`), plans one device per requester.
pub(super) fn plan(
    description: &Description,
    options: &BuildOptions,
    room: usize,
    space: &mut AddressPlan,
) -> Result<Vec<DevicePlan>, Refusal> {
    let choice = options.controller;
    let mut plans: Vec<DevicePlan> = Vec::new();
    for device in description.devices.iter().filter(|device| device.status.is_enabled()) {
        let routes = routes(description, device).into_iter().filter_map(|(name, route)| {
            choice.controller(description, route).map(|(route, _)| (name, route))
        });
        // A device may refer to several controllers, in order of preference.
        let count = if device.role == Role::Bus { usize::MAX } else { 1 };
        for (name, route) in routes.take(count) {
            if plans.len() == room {
                return Ok(plans);
            }
            let config = config(&options.population, plans.len(), &device.compatible);
            let registers = registers(
                &device.registers.iter().map(|region| region.value).collect::<Vec<_>>(),
                &name,
                space,
            )?;
            let node = device.id.clone();
            plans.push(DevicePlan { node, name, route, registers, config });
        }
    }
    Ok(plans)
}

/// Returns `true` if a driver serves the device under this choice.
pub(super) fn is_served(
    description: &Description,
    choice: ControllerChoice,
    device: &gic_firmware::PlatformDevice,
) -> bool {
    let mut routes = routes(description, device).into_iter();
    routes.any(|(_, route)| choice.controller(description, route).is_some())
}

/// Returns the routes of a device, or of a bus's requesters, each with its sender's name.
fn routes(
    description: &Description,
    device: &gic_firmware::PlatformDevice,
) -> Vec<(String, Result<Route, NoRoute>)> {
    match device.role {
        Role::Bus => {
            let requesters = requesters(&device.msi).into_iter();
            let route = |id| description.route_by(&device.msi, id);
            requesters.map(|id| (format!("{}[{id}]", device.id), route(id))).collect()
        }
        Role::Device => {
            let routes = description.platform_routes(device).into_iter();
            routes.map(|route| (device.id.to_string(), route)).collect()
        }
    }
}

/// Returns the parameters of the device at index `place`.
fn config(population: &Population, place: usize, compatible: &[String]) -> PlatformDeviceConfig {
    match population {
        Population::Chosen(endpoints) if !endpoints.devices.is_empty() => {
            let plan = endpoints.devices.iter().cycle().nth(place % endpoints.devices.len());
            plan.copied().unwrap_or(PlatformDeviceConfig::new(SLOTS))
        }
        Population::Chosen(_) | Population::Usual => {
            let slots = SLOTS + u16::try_from(place % 4).unwrap_or(0) * 2;
            let is_level = compatible.iter().any(|name| name == LEVEL_SOURCE);
            let trigger = if is_level { Trigger::Level } else { Trigger::Edge };
            PlatformDeviceConfig { trigger, ..PlatformDeviceConfig::new(slots) }
        }
    }
}

/// Returns the requesters on a bus other than PCI: one per map entry or, if the bus has no map, a
/// few whose requester IDs equal their DeviceIDs.
fn requesters(routing: &MsiRouting) -> Vec<RequesterId> {
    match &routing.map {
        Some(map) => map.iter().map(|entry| entry.rid_base).collect(),
        None => UNMAPPED.map(RequesterId::new).to_vec(),
    }
}

/// Returns the device's own register region if it is large enough and unclaimed. Otherwise, chooses
/// a region.
fn registers(stated: &[Region], name: &str, space: &mut AddressPlan) -> Result<Region, Refusal> {
    let own = stated.iter().find(|region| region.size() >= platform_device::SIZE);
    let own = own.and_then(|region| Region::new(region.base(), platform_device::SIZE));
    match own.filter(|region| space.try_claim(name, *region)) {
        Some(region) => Ok(region),
        None => space.invent("a platform device", name, platform_device::SIZE),
    }
}

/// Builds the devices and attaches their registers to the bus.
pub(super) fn build(
    plans: Vec<DevicePlan>,
    doorbells: &Arc<Doorbells>,
    bus: &mut Bus,
) -> Result<Vec<(DevicePlan, Arc<PlatformDevice>)>, Overlap> {
    let mut devices = Vec::new();
    for plan in plans {
        let upstream = Arc::clone(doorbells) as _;
        let hardware = PlatformDevice::new(plan.route.device_id, plan.config, upstream);
        let hardware = Arc::new(hardware);
        bus.attach(&plan.name, plan.registers, Arc::clone(&hardware) as _)?;
        devices.push((plan, hardware));
    }
    Ok(devices)
}
