//! Hosts and devices that a run leaves out, because no driver serves their controllers, or because
//! the run is limited.

use super::{BuildOptions, ControllerChoice, platform_devices, populate};
use gic_firmware::{Controller, ControllerIndex, ControllerKind, Description, MsiRouting};
use serde::Serialize;
use std::collections::BTreeSet;

/// An enabled host or device that takes no part in a run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[non_exhaustive]
pub struct Omission {
    /// Node of the host or device.
    pub id: String,
    /// The reason, as the end of a sentence that begins with the node.
    pub reason: String,
}

/// Returns the enabled hosts and devices that are not `planned`, although the options select their
/// controllers or no driver serves them.
pub(super) fn of(
    description: &Description,
    options: &BuildOptions,
    planned: &BTreeSet<&str>,
) -> Vec<Omission> {
    let hosts = description.hosts.iter().filter(|host| host.status.is_enabled());
    let hosts = hosts.map(|host| {
        let is_served = |choice| populate::is_served(description, choice, host);
        (&host.id, &host.msi, host.own_controller, of_choice(options, is_served))
    });
    let devices = description.devices.iter().filter(|device| device.status.is_enabled());
    let devices = devices.map(|device| {
        let is_served = |choice| platform_devices::is_served(description, choice, device);
        (&device.id, &device.msi, None, of_choice(options, is_served))
    });
    let others = hosts.chain(devices).filter(|(id, ..)| !planned.contains(id.as_str()));
    let omissions = others.filter_map(|(id, msi, own, served)| {
        let reason = match (served, options.devices) {
            (Served::Excluded, _) => return None,
            (Served::Selected, Some(limit)) => format!("the run is limited to {limit} devices"),
            _ => reason(description, msi, own),
        };
        Some(Omission { id: id.to_string(), reason })
    });
    omissions.collect()
}

/// The controllers that serve a host or device.
enum Served {
    Selected,
    /// Only controllers that the options exclude.
    Excluded,
    Nowhere,
}

fn of_choice(options: &BuildOptions, is_served: impl Fn(ControllerChoice) -> bool) -> Served {
    if is_served(options.controller) {
        Served::Selected
    } else if is_served(ControllerChoice::Auto) {
        Served::Excluded
    } else {
        Served::Nowhere
    }
}

/// Returns what keeps the routing's controllers from being served.
fn reason(description: &Description, msi: &MsiRouting, own: Option<ControllerIndex>) -> String {
    let named = populate::controllers(msi).chain(own.filter(|_| msi.is_empty()));
    let mut controllers = named.filter_map(|index| description.controller(index));
    match controllers.next() {
        None if msi.is_empty() => {
            "names no MSI controller; one inside the bridge would need its own driver".to_owned()
        }
        None => "refers to no MSI controller that firmware describes".to_owned(),
        Some(controller) => of_controller(controller),
    }
}

fn of_controller(controller: &Controller) -> String {
    let Controller { id, kind, .. } = controller;
    match kind {
        _ if !controller.status.is_enabled() => format!("signals through {id}, which is disabled"),
        ControllerKind::Other(_) => format!("signals through {id}: no driver exists for {kind}"),
        _ if controller.secondary_gic.is_some() => {
            format!("signals through {id}, which belongs to a secondary GIC")
        }
        _ if !ControllerChoice::Auto.serves(controller) => {
            format!("signals through {id}, whose registers firmware does not state")
        }
        _ => format!("has no requester that firmware routes to {id}"),
    }
}
