//! Finds the controller that serves a requester, and the requester's DeviceID at that controller.
//!
//! We follow the devicetree binding (`pci/pci-msi.txt`) and, where it is silent, Linux:
//!
//! 1. The requester ID is masked by `msi-map-mask` and looked up in `msi-map`; the first match
//!    wins, with DeviceID = `msi-base` + (masked ID − `rid-base`).
//! 2. An entry whose `rid-base` has bits that the mask clears ends the search, as in Linux.
//! 3. A requester that isn't in the map uses the node's `msi-parent`, with DeviceID = requester ID,
//!    unmasked. By the binding, an `msi-parent` next to a map belongs to the bridge itself; Linux
//!    nevertheless uses it for such a requester. We do the same, and mark the route as
//!    [`Via::ParentAfterMap`]. Without `msi-parent`, the requester has no route.
//! 4. Without a map, `msi-parent` is used, with DeviceID = requester ID. Cells after the phandle
//!    apply to messages of the bridge itself, and are ignored here. If `msi-parent` has several
//!    entries, the first entry that resolves to an enabled controller is used.
//! 5. Without `msi-map` and `msi-parent`, the MSI controller that is integrated in the bridge is
//!    used, if the bridge has one.
//!
//! A platform device has one route for each `msi-parent` entry, in firmware's order; drivers use
//! the first suitable route. A device with `msi-map` instead (e.g. a PCI endpoint controller)
//! counts as a [bus](Role::Bus).

use crate::controller::{Controller, ControllerIndex};
use crate::description::{
    Description, MapEntry, MsiRouting, Parent, PciBridge, PciHost, PlatformDevice, Role, Target,
};
use crate::finding::Fact;
use alloc::vec::Vec;
use core::fmt;
use msi_types::{DeviceId, RequesterId};

/// Number of requester IDs on PCI, where a requester ID has 16 bits.
const PCI_REQUESTERS: u32 = 0x1_0000;

/// Destination of a requester's messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// Controller that receives the messages.
    pub controller: ControllerIndex,
    /// DeviceID of the requester at the controller. Controllers that do not [need
    /// DeviceIDs](crate::ControllerKind::needs_device_id) ignore it.
    pub device_id: DeviceId,
    /// Firmware's statement that defines the route.
    pub via: Via,
}

/// Firmware's statement that defines a route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Via {
    /// The entry of `msi-map` with this index.
    Map(usize),
    /// The entry of `msi-parent` with this index.
    Parent(usize),
    /// The entry of `msi-parent` with this index, because `msi-map` has no entry for the requester.
    ParentAfterMap(usize),
    /// The host bridge's own controller.
    Own,
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Map(_) => "msi-map",
            Self::Parent(_) => "msi-parent",
            Self::ParentAfterMap(_) => "msi-parent (not in msi-map)",
            Self::Own => "own controller",
        })
    }
}

/// Reason why a requester has no controller. In each case, firmware is at fault.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoRoute {
    /// Firmware states neither `msi-map` nor `msi-parent`.
    #[error("firmware names no MSI controller for the requester")]
    NotDescribed,
    /// `msi-map` has no entry for the requester, and the node has no `msi-parent`.
    #[error("firmware's map has no entry for requester {0}")]
    Unmapped(RequesterId),
    /// The reference does not resolve to a controller.
    #[error("firmware's reference does not resolve to an MSI controller")]
    Nowhere,
    /// The controller exists but is disabled.
    #[error("the MSI controller that firmware names is disabled")]
    Disabled(ControllerIndex),
    /// Firmware states no DeviceID for a platform device whose controller needs one.
    #[error("firmware does not state the device's DeviceID")]
    NoDeviceId(ControllerIndex),
    /// The DeviceID would need more than 32 bits.
    #[error("firmware's map takes requester {0} past the 32 bits of a DeviceID")]
    DeviceIdRange(RequesterId),
}

/// Routes for consecutive requester IDs, from a single entry in firmware.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RouteSpan {
    /// First requester ID.
    pub rid_base: RequesterId,
    /// Number of requester IDs.
    pub length: u32,
    /// Controller that receives the messages.
    pub controller: ControllerIndex,
    /// DeviceID of the first requester.
    pub device_id_base: DeviceId,
    /// Firmware's statement that defines the routes.
    pub via: Via,
}

impl RouteSpan {
    /// Creates the span of all requester IDs of PCI, with DeviceID = requester ID.
    const fn everyone(controller: ControllerIndex, via: Via) -> Self {
        Self {
            rid_base: RequesterId::new(0),
            length: PCI_REQUESTERS,
            controller,
            device_id_base: DeviceId::new(0),
            via,
        }
    }
}

impl Description {
    /// Returns the route of the function with requester ID `requester` behind `host`.
    ///
    /// `requester` must be the requester ID that the host bridge receives. For a function behind a
    /// conventional PCI bridge, it is the alias that the bridge uses.
    pub fn route(&self, host: &PciHost, requester: RequesterId) -> Result<Route, NoRoute> {
        match self.route_by(&host.msi, requester) {
            Err(NoRoute::NotDescribed) => {
                let controller = host.own_controller.ok_or(NoRoute::NotDescribed)?;
                self.usable(controller)?;
                Ok(Route { controller, device_id: DeviceId::new(requester.get()), via: Via::Own })
            }
            answer => answer,
        }
    }

    /// Returns the route of the function at `path`: the device and function numbers from the root
    /// bus of `host` down to the function.
    ///
    /// As in Linux, the function uses the map of the nearest bridge on the path that has one, or
    /// else that of the host.
    pub fn route_below(
        &self,
        host: &PciHost,
        path: &[u8],
        requester: RequesterId,
    ) -> Result<Route, NoRoute> {
        let above = host.bridges.iter().filter(|bridge| path.starts_with(&bridge.path));
        match above.max_by_key(|bridge| bridge.path.len()) {
            Some(bridge) => self.route_by(&bridge.msi, requester),
            None => self.route(host, requester),
        }
    }

    /// Returns the routes that firmware states for the functions at and below `bridge`, in the form
    /// of [`host_spans`](Self::host_spans).
    pub fn bridge_spans<'a>(
        &'a self,
        bridge: &'a PciBridge,
    ) -> impl Iterator<Item = RouteSpan> + 'a {
        self.bus_spans(&bridge.msi)
    }

    /// Returns the route of `requester` according to `routing`, which belongs to a PCI host or to
    /// another bus with requester IDs.
    pub fn route_by(&self, routing: &MsiRouting, requester: RequesterId) -> Result<Route, NoRoute> {
        let Some(map) = &routing.map else {
            return self.first_parent(
                &routing.parents,
                requester,
                Via::Parent,
                NoRoute::NotDescribed,
            );
        };
        let mask = routing.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
        let Some((index, entry)) = lookup(map, mask, requester) else {
            return self.first_parent(
                &routing.parents,
                requester,
                Via::ParentAfterMap,
                NoRoute::Unmapped(requester),
            );
        };
        let Target::Controller(controller) = entry.target else { return Err(NoRoute::Nowhere) };
        self.usable(controller)?;
        let offset = (requester.get() & mask) - entry.rid_base.get();
        let device = entry
            .device_id_base
            .get()
            .checked_add(offset)
            .ok_or(NoRoute::DeviceIdRange(requester))?;
        Ok(Route { controller, device_id: DeviceId::new(device), via: Via::Map(index) })
    }

    /// Returns the routes of a platform device: one for each controller that it refers to.
    pub fn platform_routes(&self, device: &PlatformDevice) -> Vec<Result<Route, NoRoute>> {
        device
            .msi
            .parents
            .iter()
            .enumerate()
            .map(|(index, parent)| self.parent_route(index, parent))
            .collect()
    }

    /// Returns the routes that firmware states for the functions behind `host`, as spans of
    /// requester IDs.
    ///
    /// The result is consistent with [`route`](Self::route), which uses the first span that
    /// contains the requester ID and whose controller is enabled. Spans from `msi-map` contain
    /// masked requester IDs. References that resolve to no controller are omitted.
    pub fn host_spans<'a>(&'a self, host: &'a PciHost) -> impl Iterator<Item = RouteSpan> + 'a {
        let own = host.own_controller.filter(|_| host.msi.is_empty());
        let own = own.map(|controller| RouteSpan::everyone(controller, Via::Own));
        self.bus_spans(&host.msi).chain(own)
    }

    /// Returns the routes that firmware states for a platform device. A [device](Role::Device) has
    /// a span of length 1 for each controller that it refers to; a [bus](Role::Bus) has the spans
    /// of the devices behind it. If a controller has no DeviceIDs, the span states DeviceID 0.
    pub fn device_spans(&self, device: &PlatformDevice) -> Vec<RouteSpan> {
        if device.role == Role::Bus {
            return self.bus_spans(&device.msi).collect();
        }
        let parents = device.msi.parents.iter().enumerate();
        parents
            .filter_map(|(index, parent)| {
                Some(RouteSpan {
                    rid_base: RequesterId::new(0),
                    length: 1,
                    controller: self.resolve(parent.target)?,
                    device_id_base: parent.device_id().unwrap_or_default(),
                    via: Via::Parent(index),
                })
            })
            .collect()
    }

    fn bus_spans<'a>(&'a self, routing: &'a MsiRouting) -> impl Iterator<Item = RouteSpan> + 'a {
        // As in `lookup`, the map ends before an entry that the mask cannot lead to.
        let mask = routing.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
        let sound = move |entry: &&Fact<MapEntry>| entry.rid_base.get() & !mask == 0;
        let map = routing.map.iter().flatten().take_while(sound).enumerate();
        let map = map.filter_map(|(index, entry)| {
            Some(RouteSpan {
                rid_base: entry.rid_base,
                length: entry.length,
                controller: self.resolve(entry.target)?,
                device_id_base: entry.device_id_base,
                via: Via::Map(index),
            })
        });
        let via = if routing.map.is_some() { Via::ParentAfterMap } else { Via::Parent };
        let parents = routing.parents.iter().enumerate().filter_map(move |(index, parent)| {
            Some(RouteSpan::everyone(self.resolve(parent.target)?, via(index)))
        });
        map.chain(parents)
    }

    fn parent_route(&self, index: usize, parent: &Parent) -> Result<Route, NoRoute> {
        let controller = self.resolve(parent.target).ok_or(NoRoute::Nowhere)?;
        let needs_device_id = self.usable(controller)?.kind.needs_device_id();
        let device_id = match parent.device_id() {
            Some(device_id) => device_id,
            None if needs_device_id => return Err(NoRoute::NoDeviceId(controller)),
            None => DeviceId::default(),
        };
        Ok(Route { controller, device_id, via: Via::Parent(index) })
    }

    /// Returns the route through the first usable entry in `parents`, with DeviceID = requester ID.
    /// If no entry is usable, returns the reason why the first entry is not.
    fn first_parent(
        &self,
        parents: &[Fact<Parent>],
        requester: RequesterId,
        via: impl Fn(usize) -> Via,
        otherwise: NoRoute,
    ) -> Result<Route, NoRoute> {
        let mut reason = None;
        for (index, parent) in parents.iter().enumerate() {
            let found = self.resolve(parent.target).ok_or(NoRoute::Nowhere);
            match found.and_then(|controller| self.usable(controller).map(|_| controller)) {
                Ok(controller) => {
                    let device_id = DeviceId::new(requester.get());
                    return Ok(Route { controller, device_id, via: via(index) });
                }
                Err(why) => reason = reason.or(Some(why)),
            }
        }
        Err(reason.unwrap_or(otherwise))
    }

    fn usable(&self, index: ControllerIndex) -> Result<&Controller, NoRoute> {
        let controller = self.controller(index).ok_or(NoRoute::Nowhere)?;
        if controller.status.is_enabled() { Ok(controller) } else { Err(NoRoute::Disabled(index)) }
    }

    fn resolve(&self, target: Target) -> Option<ControllerIndex> {
        match target {
            Target::Controller(index) if self.controller(index).is_some() => Some(index),
            Target::Controller(_) | Target::Nowhere => None,
        }
    }
}

/// Returns the entry that contains `requester`, and its index in the map.
fn lookup(map: &[Fact<MapEntry>], mask: u32, requester: RequesterId) -> Option<(usize, &MapEntry)> {
    let masked = requester.get() & mask;
    for (index, entry) in map.iter().enumerate() {
        let base = entry.rid_base.get();
        if base & !mask != 0 {
            return None;
        }
        if masked.checked_sub(base).is_some_and(|offset| offset < entry.length) {
            return Some((index, &entry.value));
        }
    }
    None
}
