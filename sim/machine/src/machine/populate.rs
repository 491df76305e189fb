//! The functions behind a host bridge: either chosen ones, or a few functions of different kinds
//! for each entry in the host's routing, at requester IDs that the entry covers.

use super::{ChosenFunction, ControllerChoice, FunctionPlacement, Population};
use crate::trace::Recorder;
use doorbell_hardware::bus::Doorbells;
use doorbell_hardware::pci::{
    AddressWidth, BridgeKind, DevFn, DeviceFunctions, FunctionConfig, Segment, StoreConfig,
    Translator,
};
use gic_firmware::{
    BusRange, ControllerIndex, ControllerKind, Description, MsiRouting, PciHost, Target, Via,
};
use msi_types::trace::Observed;
use msi_types::{DeviceId, Masking, RequesterId, SignalMsi};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Number of functions on the root bus per routing entry.
const ON_ROOT: usize = 3;
/// Number of functions on another bus per routing entry.
const ON_BRANCH: usize = 2;
/// Maximum number of bridges on one root bus.
const BRIDGES: u8 = 12;
/// Number of devices on a root bus, not counting the bus's bridges.
const ROOT_DEVICES: u8 = 32 - BRIDGES;
/// Maximum number of routing entries per host for which functions are planned.
const STATEMENTS: usize = 24;
/// Lowest doorbell address that a function with 32-bit message addresses cannot store.
const FOUR_GIB: u64 = 1 << 32;

/// The kinds of message stores, in the order in which they are assigned to functions.
const STORES: [StoreConfig; 7] = [
    StoreConfig::Msix { vectors: 8, table_bar: 0, pba_bar: 2 },
    StoreConfig::Msi {
        log2_vectors: 3,
        address: AddressWidth::Bits64,
        masking: Masking::PerVector,
    },
    StoreConfig::Msix { vectors: 5, table_bar: 0, pba_bar: 0 },
    StoreConfig::Msi { log2_vectors: 0, address: AddressWidth::Bits64, masking: Masking::None },
    StoreConfig::Msi {
        log2_vectors: 2,
        address: AddressWidth::Bits32,
        masking: Masking::PerVector,
    },
    StoreConfig::Msix { vectors: 16, table_bar: 2, pba_bar: 4 },
    StoreConfig::Msi { log2_vectors: 2, address: AddressWidth::Bits64, masking: Masking::None },
];

/// The planned functions of a host bridge.
#[derive(Debug, Default)]
pub(super) struct Functions {
    /// Message stores, indexed by bus and device/function number.
    functions: BTreeMap<(u8, DevFn), StoreConfig>,
    /// Numbers of the buses behind conventional-PCI bridges.
    conventional: BTreeSet<u8>,
}

/// A requester, and the doorbell address that its messages will contain.
type Candidate = (RequesterId, u64);

/// For each routing entry, the requesters that the entry routes to a participating controller, in
/// ascending order.
pub(super) type CandidateMap = BTreeMap<usize, Vec<Candidate>>;

impl Functions {
    /// Plans a few functions per routing entry, with as many kinds of message stores as possible.
    fn usual(candidates: &CandidateMap, first_bus: u8) -> Self {
        let mut plan = Self::default();
        for candidates in candidates.values().take(STATEMENTS) {
            plan.populate_root(candidates, first_bus);
            plan.populate_branch(candidates, first_bus);
        }
        // One conventional-PCI bridge per host is enough.
        let _ =
            candidates.values().any(|candidates| plan.populate_conventional(candidates, first_bus));
        plan.complete_devices();
        plan
    }

    /// Plans the functions of one of `hosts` host bridges: the one that has this turn among them.
    pub(super) fn plan(
        population: &Population,
        candidates: &CandidateMap,
        first_bus: u8,
        (turn, hosts): (usize, usize),
        note: impl FnOnce(String),
    ) -> Self {
        match population {
            Population::Usual => Self::usual(candidates, first_bus),
            Population::Chosen(chosen) => {
                let theirs = chosen.functions.iter().skip(turn).step_by(hosts);
                let (functions, left_out) = place(theirs, candidates, first_bus);
                if left_out != 0 {
                    note(format!("{left_out} chosen functions found no place"));
                }
                functions
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.functions.is_empty()
    }

    /// Returns all functions' requester IDs.
    pub(super) fn requesters(&self) -> impl Iterator<Item = RequesterId> {
        let ids = self.functions.keys();
        ids.map(|(bus, at)| RequesterId::pci(*bus, at.device(), at.function()))
    }

    /// Builds the buses. `upstream` receives messages that leave the root bus.
    pub(super) fn build(
        &self,
        first_bus: u8,
        upstream: &Arc<dyn SignalMsi<RequesterId>>,
    ) -> Segment {
        let mut root = Segment::new(first_bus);
        self.plug_functions(&mut root, first_bus, upstream);
        let taken: BTreeSet<u8> = self.on_bus(first_bus).map(|(at, _)| at.device()).collect();
        let free = (0..32).filter(|device| !taken.contains(device));
        for (bus, device) in self.branches(first_bus).into_iter().zip(free) {
            let kind = if self.conventional.contains(&bus) {
                BridgeKind::ToConventional
            } else {
                BridgeKind::RootPort
            };
            let mut segment = Segment::new(bus);
            let upstream = segment.upstream(kind, Arc::clone(upstream));
            self.plug_functions(&mut segment, bus, &upstream);
            root.plug_bridge(DevFn::new(device, 0), kind, segment);
        }
        root
    }

    fn plug_functions(
        &self,
        segment: &mut Segment,
        bus: u8,
        upstream: &Arc<dyn SignalMsi<RequesterId>>,
    ) {
        for (at, store) in self.on_bus(bus) {
            let functions_in_device =
                match self.on_bus(bus).filter(|(other, _)| other.device() == at.device()).count() {
                    1 => DeviceFunctions::One,
                    _ => DeviceFunctions::Multiple,
                };
            let plan = FunctionConfig { store, at, functions_in_device };
            segment.plug(plan, Arc::clone(upstream));
        }
    }

    /// Adds functions for the first few requesters on the root bus. If possible, the last of these
    /// functions shares a device with another function.
    fn populate_root(&mut self, candidates: &[Candidate], first_bus: u8) {
        let here: Vec<_> = candidates.iter().filter(|(id, _)| id.pci_bus() == first_bus).collect();
        let devices = here.iter().filter(|(id, _)| id.pci_function() == 0);
        let companions = here.iter().filter(|(id, _)| id.pci_function() == 1);
        let singles = here.iter().take(1);
        let chosen: BTreeSet<_> =
            devices.take(ON_ROOT - 1).chain(companions.take(1)).chain(singles).collect();
        for candidate in chosen {
            self.add(**candidate);
        }
    }

    /// Adds functions for the first few requesters on the first usable bus other than the root bus.
    fn populate_branch(&mut self, candidates: &[Candidate], first_bus: u8) {
        let off_root = || candidates.iter().filter(|(id, _)| id.pci_bus() != first_bus);
        let usable = |bus: u8| !self.conventional.contains(&bus) && self.has_room(bus, first_bus);
        let Some(bus) = off_root().map(|(id, _)| id.pci_bus()).find(|bus| usable(*bus)) else {
            return;
        };
        let here = off_root().filter(|(id, _)| id.pci_bus() == bus);
        for candidate in here.filter(|(id, _)| id.pci_function() <= 1).take(ON_BRANCH) {
            self.add(*candidate);
        }
    }

    /// Adds two functions behind a conventional-PCI bridge. The two functions share one requester
    /// ID, that of device 0, function 0 on the secondary bus. Returns `false` if no bus is free for
    /// the bridge.
    fn populate_conventional(&mut self, candidates: &[Candidate], first_bus: u8) -> bool {
        let Some((alias, doorbell)) = self.find_alias(candidates.iter(), first_bus) else {
            return false;
        };
        self.conventional.insert(alias.pci_bus());
        for device in [2, 5] {
            self.add((RequesterId::pci(alias.pci_bus(), device, 0), doorbell));
        }
        true
    }

    /// Returns a requester ID that a conventional-PCI bridge can use as its alias.
    fn find_alias<'a>(
        &self,
        mut candidates: impl Iterator<Item = &'a Candidate>,
        first_bus: u8,
    ) -> Option<Candidate> {
        let is_alias = |(id, _): &&Candidate| {
            let bus = id.pci_bus();
            *id == RequesterId::pci(bus, 0, 0)
                && bus != first_bus
                && self.on_bus(bus).next().is_none()
                && self.has_room(bus, first_bus)
        };
        candidates.find(is_alias).copied()
    }

    /// Adds function 0 to devices that lack it. Without function 0, software would not find a
    /// device's other functions.
    fn complete_devices(&mut self) {
        let lacking: Vec<_> = self
            .functions
            .keys()
            .map(|(bus, at)| (*bus, DevFn::new(at.device(), 0)))
            .filter(|first| !self.functions.contains_key(first))
            .collect();
        for first in lacking {
            self.functions.insert(first, StoreConfig::None);
        }
    }

    fn add(&mut self, (requester, doorbell): Candidate) {
        let fits = |store: &&StoreConfig| {
            doorbell < FOUR_GIB
                || !matches!(store, StoreConfig::Msi { address: AddressWidth::Bits32, .. })
        };
        let mut stores = STORES.iter().filter(fits).cycle().skip(self.functions.len());
        let place =
            (requester.pci_bus(), DevFn::new(requester.pci_device(), requester.pci_function()));
        if let Some(store) = stores.next() {
            self.functions.entry(place).or_insert(*store);
        }
    }

    fn on_bus(&self, bus: u8) -> impl Iterator<Item = (DevFn, StoreConfig)> {
        self.functions
            .iter()
            .filter(move |((other, _), _)| *other == bus)
            .map(|((_, at), store)| (*at, *store))
    }

    fn branches(&self, first_bus: u8) -> BTreeSet<u8> {
        self.functions.keys().map(|(bus, _)| *bus).filter(|bus| *bus != first_bus).collect()
    }

    fn has_room(&self, bus: u8, first_bus: u8) -> bool {
        let branches = self.branches(first_bus);
        branches.contains(&bus) || branches.len() < usize::from(BRIDGES)
    }
}

/// Returns the planned functions, and the number of functions that could not be placed.
fn place<'a>(
    endpoints: impl Iterator<Item = &'a ChosenFunction>,
    candidates: &CandidateMap,
    first_bus: u8,
) -> (Functions, usize) {
    let mut placer =
        FunctionPlacer { plan: Functions::default(), candidates, first_bus, last: None };
    let mut left = 0;
    for (number, endpoint) in endpoints.enumerate() {
        // If the requested location does not exist, fall back to the root bus.
        let found = placer
            .find(endpoint.place, number)
            .or_else(|| placer.find(FunctionPlacement::Root, number));
        match found {
            Some((bus, at)) => {
                placer.plan.functions.insert((bus, at), endpoint.store);
                placer.last = Some((bus, at));
            }
            None => left += 1,
        }
    }
    let mut plan = placer.plan;
    plan.complete_devices();
    (plan, left)
}

struct FunctionPlacer<'a> {
    plan: Functions,
    candidates: &'a CandidateMap,
    first_bus: u8,
    last: Option<(u8, DevFn)>,
}

impl FunctionPlacer<'_> {
    /// Finds a free location of this kind. Successive functions use successive routing entries.
    fn find(&mut self, kind: FunctionPlacement, number: usize) -> Option<(u8, DevFn)> {
        if kind == FunctionPlacement::Conventional {
            return self.find_conventional();
        }
        let statements = self.candidates.len();
        let in_turn =
            self.candidates.values().cycle().skip(number % statements.max(1)).take(statements);
        let mut places = in_turn.flatten().map(|(requester, _)| place_of(*requester));
        places.find(|place| self.suits(kind, *place))
    }

    fn suits(&self, kind: FunctionPlacement, (bus, at): (u8, DevFn)) -> bool {
        let is_root = bus == self.first_bus;
        let alone = at.function() == 0 && !self.plan.functions.contains_key(&(bus, at));
        match kind {
            FunctionPlacement::Root => is_root && alone && at.device() < ROOT_DEVICES,
            FunctionPlacement::BesideLast => {
                self.last
                    .is_some_and(|(its_bus, its)| its_bus == bus && its.device() == at.device())
                    && !self.plan.conventional.contains(&bus)
                    && !self.plan.functions.contains_key(&(bus, at))
            }
            FunctionPlacement::Branch => {
                let empty = self.plan.on_bus(bus).next().is_none();
                !is_root
                    && alone
                    && at.device() == 0
                    && empty
                    && self.plan.has_room(bus, self.first_bus)
            }
            FunctionPlacement::Conventional => false,
        }
    }

    /// Returns the next free device behind the conventional-PCI bridge. Assigns a bus to the bridge
    /// if it has none.
    fn find_conventional(&mut self) -> Option<(u8, DevFn)> {
        let has_bus = self.plan.conventional.first().copied();
        let bus = has_bus.or_else(|| {
            let alias = self.plan.find_alias(self.candidates.values().flatten(), self.first_bus)?;
            Some(alias.0.pci_bus())
        })?;
        self.plan.conventional.insert(bus);
        let mut places = (1..32).map(|device| (bus, DevFn::new(device, 0)));
        places.find(|place| !self.plan.functions.contains_key(place))
    }
}

fn place_of(requester: RequesterId) -> (u8, DevFn) {
    (requester.pci_bus(), DevFn::new(requester.pci_device(), requester.pci_function()))
}

/// Returns `true` if a map or reference of the host or of a bridge below it leads to a controller
/// that takes part.
pub(super) fn is_served(
    description: &Description,
    choice: ControllerChoice,
    host: &PciHost,
) -> bool {
    let routings = host.bridges.iter().map(|bridge| &bridge.msi).chain([&host.msi]);
    let mut controllers = routings.flat_map(controllers).chain(host.own_controller);
    controllers.any(|index| {
        description.controller(index).is_some_and(|controller| choice.serves(controller))
    })
}

/// Returns the controllers that a map or references name.
pub(super) fn controllers(msi: &MsiRouting) -> impl Iterator<Item = ControllerIndex> {
    let mapped = msi.map.iter().flatten().map(|entry| entry.target);
    let targets = mapped.chain(msi.parents.iter().map(|parent| parent.target));
    targets.filter_map(|target| match target {
        Target::Controller(index) => Some(index),
        Target::Nowhere => None,
    })
}

/// Returns the requester IDs at which `host` can have functions. The result is empty if the host's
/// routing doesn't reach any participating controller.
pub(super) fn candidates(
    description: &Description,
    choice: ControllerChoice,
    host: &PciHost,
    buses: BusRange,
) -> CandidateMap {
    let mut statements = CandidateMap::new();
    for bus in buses.first..=buses.last {
        for place in 0..=u8::MAX {
            let at = DevFn(place);
            let requester = RequesterId::pci(bus, at.device(), at.function());
            let route = description.route(host, requester);
            let Some((route, controller)) = choice.controller(description, route) else { continue };
            let statement = match route.via {
                Via::Map(index) | Via::Parent(index) | Via::ParentAfterMap(index) => index,
                _ => 0,
            };
            let doorbell = match controller.kind {
                // The drivers look up the redistributor and check that the endpoint can store its
                // doorbell's address.
                ControllerKind::DirectLpi => 0,
                // The drivers choose an address below 4 GiB.
                _ if controller.kind.is_in_bridge() => 0,
                _ => controller.doorbell(route.device_id).unwrap_or(u64::MAX),
            };
            statements.entry(statement).or_default().push((requester, doorbell));
        }
    }
    statements
}

/// Returns the translation from a host's requester IDs to DeviceIDs, as described by firmware.
pub(super) fn translator(
    description: &Arc<Description>,
    host: usize,
    doorbells: &Arc<Doorbells>,
) -> Arc<dyn SignalMsi<RequesterId>> {
    let description = Arc::clone(description);
    let translate = move |requester| -> Option<DeviceId> {
        let host = description.hosts.get(host)?;
        description.route(host, requester).ok().map(|route| route.device_id)
    };
    Arc::new(Translator::new(Arc::clone(doorbells), translate))
}

/// Wraps `upstream` so that it reports the messages of functions to the recorder, if any.
pub(super) fn observed(
    upstream: Arc<dyn SignalMsi<RequesterId>>,
    recorder: Option<&Arc<Recorder>>,
) -> Arc<dyn SignalMsi<RequesterId>> {
    match recorder {
        Some(recorder) => Arc::new(Observed::new(upstream, Arc::clone(recorder))),
        None => upstream,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded;

    fn usual(description: &Description, host: &PciHost) -> Functions {
        let buses = host.buses.value;
        Functions::usual(&candidates(description, ControllerChoice::Auto, host, buses), buses.first)
    }

    #[test]
    fn every_msi_map_entry_maps_a_function() {
        let description = embedded::machine("harbour").unwrap().firmware.describe().unwrap();
        for host in &description.hosts {
            let plan = usual(&description, host);
            let statement = |(bus, at): &(u8, DevFn)| {
                let alias = if plan.conventional.contains(bus) { DevFn::new(0, 0) } else { *at };
                let requester = RequesterId::pci(*bus, alias.device(), alias.function());
                description.route(host, requester).unwrap().via
            };
            let served: Vec<_> = plan.functions.keys().map(statement).collect();
            for index in 0..host.msi.map.as_ref().unwrap().len() {
                assert!(served.contains(&Via::Map(index)), "{} msi-map entry {index}", host.id);
            }
        }
    }

    #[test]
    fn default_devices_include_a_multifunction_device_and_a_conventional_bus() {
        let description = embedded::machine("harbour").unwrap().firmware.describe().unwrap();
        let host = &description.hosts[0];
        let plan = usual(&description, host);
        assert!(plan.functions.keys().any(|(_, at)| at.function() == 1));
        assert_eq!(plan.conventional.len(), 1);
    }
}
