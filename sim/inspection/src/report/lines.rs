//! The tables of controllers and requesters, with the same contents as `doorbell inspect`.

use crate::inspect::{CapacityRow, ControllerRow, Inspection, addresses, first_names, yes_no};
use std::collections::BTreeMap;

/// A controller.
#[derive(Debug)]
pub(super) struct ControllerLine {
    pub(super) id: String,
    /// Index of the controller's box in the picture.
    pub(super) node: Option<usize>,
    pub(super) kind: String,
    pub(super) enabled: &'static str,
    pub(super) doorbell: String,
    pub(super) interrupts: String,
    pub(super) room: String,
    pub(super) device_id_bits: String,
    pub(super) event_id_bits: String,
}

/// One route of a requester, or a requester without a route.
#[derive(Debug)]
pub(super) struct DeviceLine {
    pub(super) id: String,
    /// Index of the requester's box in the picture.
    pub(super) node: Option<usize>,
    pub(super) kind: String,
    pub(super) enabled: &'static str,
    pub(super) requesters: String,
    pub(super) device_ids: String,
    pub(super) controller: String,
    pub(super) by: String,
    pub(super) through: String,
    pub(super) isolation: String,
}

/// Returns one line per controller. `nodes` are the boxes of the controllers.
pub(super) fn controllers(
    inspection: &Inspection,
    nodes: impl Iterator<Item = usize>,
) -> Vec<ControllerLine> {
    let mut nodes = nodes;
    let mut capacities = BTreeMap::new();
    for row in &inspection.capacity {
        capacities.entry(&row.controller).or_insert(row);
    }
    let line = |controller: &ControllerRow| {
        let capacity = capacities.get(&controller.id);
        let shown =
            |show: fn(&CapacityRow) -> String| capacity.map_or_else(String::new, |row| show(row));
        ControllerLine {
            id: controller.id.clone(),
            node: nodes.next(),
            kind: controller.kind.clone(),
            enabled: yes_no(controller.enabled),
            doorbell: addresses(&controller.doorbells),
            interrupts: controller.interrupts(),
            room: shown(CapacityRow::room),
            device_id_bits: shown(CapacityRow::device_ids),
            event_id_bits: shown(CapacityRow::event_ids),
        }
    };
    inspection.controllers.iter().map(line).collect()
}

/// Returns the requesters' lines, one per route.
pub(super) fn devices(
    inspection: &Inspection,
    node: impl Fn(&str) -> Option<usize>,
) -> Vec<DeviceLine> {
    let mut lines = Vec::new();
    for device in &inspection.devices {
        let node = node(&device.id);
        let blank = || DeviceLine {
            id: device.id.clone(),
            node,
            kind: device.kind.clone(),
            enabled: yes_no(device.enabled),
            requesters: String::new(),
            device_ids: String::new(),
            controller: "none".to_owned(),
            by: String::new(),
            through: String::new(),
            isolation: device.isolation.clone(),
        };
        if device.routes.is_empty() {
            lines.push(blank());
        }
        lines.extend(device.routes.iter().map(|route| DeviceLine {
            requesters: span(route.rid_base, route.length),
            device_ids: span(route.device_id_base, route.length),
            controller: route.controller.clone(),
            by: route.via.clone(),
            through: first_names(&route.iommus),
            ..blank()
        }));
    }
    lines
}

/// Formats a single ID, or a range as first ID and length.
fn span(base: u32, length: u32) -> String {
    if length == 1 { format!("{base:#x}") } else { format!("{base:#x}+{length:#x}") }
}
