//! Computes the DeviceIDs that each requester uses at its controllers.

use crate::controller::{Controller, ControllerIndex};
use crate::description::{BusRange, Description, MsiRouting, Role};
use crate::finding::{NodeId, Origin};
use crate::route::{RouteSpan, Via};
use alloc::vec::Vec;

/// Range of DeviceIDs that one node uses at one controller, inclusive at both ends.
#[derive(Clone, Debug)]
pub(super) struct Claim<'d> {
    pub(super) controller: ControllerIndex,
    pub(super) first: u32,
    pub(super) last: u32,
    /// Requester. For a bridge, this is the node of its host.
    pub(super) owner: &'d NodeId,
    /// Statement that defines the route.
    pub(super) origin: Origin,
}

/// Returns the claims of enabled requesters at enabled controllers. Ignores requester IDs on buses
/// that are not behind the host.
pub(super) fn claims(description: &Description) -> Vec<Claim<'_>> {
    let mut claims = Vec::new();
    for host in description.hosts.iter().filter(|host| host.status.is_enabled()) {
        let mut collector = Collector { description, claims: &mut claims, owner: &host.id };
        let spans = description.host_spans(host);
        collector.spans(&host.msi, spans, Some(host.buses.value));
        for bridge in host.bridges.iter().filter(|bridge| bridge.status.is_enabled()) {
            collector.spans(&bridge.msi, description.bridge_spans(bridge), Some(host.buses.value));
        }
    }
    for device in description.devices.iter().filter(|device| device.status.is_enabled()) {
        let mut collector = Collector { description, claims: &mut claims, owner: &device.id };
        let spans = description.device_spans(device).into_iter();
        match device.role {
            Role::Device => collector.all(&device.msi, spans),
            Role::Bus => collector.spans(&device.msi, spans, None),
        }
    }
    claims
}

struct Collector<'d, 'c> {
    description: &'d Description,
    claims: &'c mut Vec<Claim<'d>>,
    owner: &'d NodeId,
}

impl Collector<'_, '_> {
    /// Adds the spans of a bus: those of its `msi-map`, or, without a map, that of its first
    /// `msi-parent`. Ignores requesters that have no entry in the map and so fall back to
    /// `msi-parent`.
    fn spans(
        &mut self,
        msi: &MsiRouting,
        spans: impl Iterator<Item = RouteSpan>,
        buses: Option<BusRange>,
    ) {
        let buses = buses.filter(|_| msi.mask.is_none());
        let mut is_first_parent = true;
        for span in spans {
            let counts = match span.via {
                Via::Map(_) => true,
                Via::Parent(_) => core::mem::take(&mut is_first_parent),
                Via::ParentAfterMap(_) | Via::Own => false,
            };
            if let Some(span) =
                Some(span).filter(|_| counts).and_then(|span| reachable(span, buses))
            {
                self.add(msi, span);
            }
        }
    }

    /// Adds the spans of a device, except those of references without a DeviceID.
    fn all(&mut self, msi: &MsiRouting, spans: impl Iterator<Item = RouteSpan>) {
        let has_id = |span: &RouteSpan| match span.via {
            Via::Parent(index) => {
                msi.parents.get(index).is_some_and(|parent| parent.device_id().is_some())
            }
            _ => true,
        };
        spans.filter(has_id).for_each(|span| self.add(msi, span));
    }

    fn add(&mut self, msi: &MsiRouting, span: RouteSpan) {
        let controller = self.description.controller(span.controller);
        let origin = match span.via {
            Via::Map(index) => {
                msi.map.as_ref().and_then(|map| map.get(index)).map(|entry| &entry.origin)
            }
            Via::Parent(index) => msi.parents.get(index).map(|parent| &parent.origin),
            Via::ParentAfterMap(_) | Via::Own => None,
        };
        let usable = |controller: &&Controller| {
            controller.status.is_enabled() && controller.kind.needs_device_id()
        };
        let (Some(_), Some(origin)) = (controller.filter(usable), origin) else { return };
        let Some(more) = span.length.checked_sub(1) else { return };
        let first = span.device_id_base.get();
        self.claims.push(Claim {
            controller: span.controller,
            first,
            last: first.saturating_add(more),
            owner: self.owner,
            origin: origin.clone(),
        });
    }
}

/// Returns the part of `span` whose requesters are on `buses`.
pub(super) fn reachable(span: RouteSpan, buses: Option<BusRange>) -> Option<RouteSpan> {
    let Some(buses) = buses else { return Some(span) };
    let (low, high) = requesters(buses);
    let first = span.rid_base.get().max(low);
    let last = span.rid_base.get().saturating_add(span.length.checked_sub(1)?).min(high);
    let skipped = first - span.rid_base.get();
    Some(RouteSpan {
        rid_base: first.into(),
        length: last.checked_sub(first)?.saturating_add(1),
        device_id_base: span.device_id_base.get().checked_add(skipped)?.into(),
        ..span
    })
}

/// Returns the first and the last requester ID of these buses.
pub(super) fn requesters(buses: BusRange) -> (u32, u32) {
    (u32::from(buses.first) << 8, (u32::from(buses.last) << 8) | 0xff)
}
