//! Assigns each chosen function the next free location of its kind.

use super::{BRIDGES, CandidateMap, Functions};
use crate::machine::population::{ChosenFunction, FunctionPlacement};
use doorbell_hardware::pci::DevFn;
use msi_types::RequesterId;

/// Number of devices on a root bus, not counting the bus's bridges.
const ROOT_DEVICES: u8 = 32 - BRIDGES;

/// Returns the planned functions, and the number of functions that could not be placed.
pub(crate) fn place<'a>(
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
