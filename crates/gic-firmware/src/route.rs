//! From a requester to the controller that serves it and the DeviceID it has there.
//!
//! Devicetree's rules, `msi-map` first (`pci/pci-msi.txt`, and where that is silent, what Linux
//! does):
//!
//! 1. The requester ID is masked by `msi-map-mask` and looked up in `msi-map`, first match wins;
//!    DeviceID = `msi-base` + (masked ID − `rid-base`).
//! 2. An entry whose `rid-base` has bits that the mask clears ends the search, as in Linux.
//! 3. What the map leaves out goes to the node's `msi-parent` with DeviceID = requester ID,
//!    unmasked. The binding gives `msi-parent` beside a map to the bridge itself; Linux falls back
//!    to it, and so do we, saying so ([`Via::ParentAfterMap`]). Without `msi-parent` there is no
//!    route.
//! 4. Without a map: `msi-parent`, DeviceID = requester ID. Cells after the phandle are for the
//!    bridge itself. Of several entries the first that leads to an enabled controller counts.
//! 5. Neither: the bridge's own MSI controller, if it is one.
//!
//! A platform device has one route for each `msi-parent` entry, in firmware's order; drivers take
//! the first that suits them. A device with `msi-map` instead, such as a PCI endpoint controller,
//! counts as a [bus](Role::Bus).

use crate::controller::{Controller, ControllerIndex};
use crate::description::Description;
use crate::origin::Fact;
use crate::requester::{
    MapEntry, MsiRouting, Parent, PciBridge, PciHost, PlatformDevice, Role, Target,
};
use alloc::vec::Vec;
use core::fmt;
use msi_types::{DeviceId, RequesterId};

/// Requester IDs on PCI: 16 bits.
const PCI_REQUESTERS: u32 = 0x1_0000;

/// Destination of a requester's messages.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Route {
    /// The controller.
    pub controller: ControllerIndex,
    /// DeviceID of the requester there. Controllers whose kind does not [need
    /// it](crate::ControllerKind::needs_device_id) ignore it.
    pub device_id: DeviceId,
    /// By which statement.
    pub via: Via,
}

/// The statement that makes a route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum Via {
    /// This entry of `msi-map`.
    Map(usize),
    /// This entry of `msi-parent`.
    Parent(usize),
    /// This entry of `msi-parent`, because `msi-map` leaves the requester out.
    ParentAfterMap(usize),
    /// The host bridge is a controller itself.
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

/// Reason for which a requester has no controller: firmware's doing in every case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub enum NoRoute {
    /// Neither a map nor a parent.
    #[error("firmware names no MSI controller for it")]
    NotDescribed,
    /// The map leaves the requester out, and there is no parent.
    #[error("firmware's map has no entry for requester {0}")]
    Unmapped(RequesterId),
    /// The reference is broken.
    #[error("firmware's reference leads to no MSI controller")]
    Nowhere,
    /// The controller is there but disabled.
    #[error("the MSI controller that firmware names is disabled")]
    Disabled(ControllerIndex),
    /// A platform device without a DeviceID at a controller that needs one.
    #[error("firmware does not say its DeviceID")]
    NoDeviceId(ControllerIndex),
    /// The DeviceID would need more than 32 bits.
    #[error("firmware's map leads requester {0} past the 32 bits of a DeviceID")]
    DeviceIdRange(RequesterId),
}

/// Routes of consecutive requester IDs: what a node says, entry by entry.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RouteSpan {
    /// First requester ID.
    pub rid_base: RequesterId,
    /// Number of requester IDs.
    pub length: u32,
    /// To which controller.
    pub controller: ControllerIndex,
    /// The DeviceID of the first.
    pub device_id_base: DeviceId,
    /// By which statement.
    pub via: Via,
}

impl RouteSpan {
    /// All of PCI's requester IDs, each its own DeviceID.
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
    /// The requester ID is the one that arrives at the bridge: behind a conventional bridge the
    /// alias.
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

    /// Returns the route of the function that the device and function numbers `path` lead to, from
    /// the root bus of `host` down to its own.
    ///
    /// The nearest bridge on that way with a map of its own decides, as in Linux; without one, the
    /// host.
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

    /// Returns what firmware says about the functions at and below `bridge`, like
    /// [`host_spans`](Self::host_spans).
    pub fn bridge_spans<'a>(
        &'a self,
        bridge: &'a PciBridge,
    ) -> impl Iterator<Item = RouteSpan> + 'a {
        self.bus_spans(&bridge.msi)
    }

    /// Returns the route of `requester` by `routing`, that of a PCI host or of another bus with
    /// requester IDs.
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

    /// Returns the routes of a platform device: one for each controller that it names.
    pub fn platform_routes(&self, device: &PlatformDevice) -> Vec<Result<Route, NoRoute>> {
        device
            .msi
            .parents
            .iter()
            .enumerate()
            .map(|(index, parent)| self.parent_route(index, parent))
            .collect()
    }

    /// Returns firmware's statements about the functions behind `host`, as spans of requester IDs.
    ///
    /// Agrees with [`route`](Self::route): the first span that holds a requester ID and whose
    /// controller is enabled makes the route. Spans of a map count masked IDs. References that lead
    /// nowhere are left out.
    pub fn host_spans<'a>(&'a self, host: &'a PciHost) -> impl Iterator<Item = RouteSpan> + 'a {
        let own = host.own_controller.filter(|_| host.msi.is_empty());
        let own = own.map(|controller| RouteSpan::everyone(controller, Via::Own));
        self.bus_spans(&host.msi).chain(own)
    }

    /// Returns firmware's statements about a platform device. These are a span of one for each
    /// controller that it names, or the spans of the devices behind a bus. A device at a controller
    /// without DeviceIDs counts as DeviceID 0.
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
        let map = routing.map.iter().flatten().enumerate().filter_map(|(index, entry)| {
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

    /// The first usable one of `parents` with DeviceID = requester ID, else why the first one is
    /// not.
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

/// The entry that claims `requester`, and its place in the map.
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
