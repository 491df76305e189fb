//! Comparison of the router with the simplest possible table, and regression tests for defects of
//! other monitors.

use crate::controller::{Controller, Heard};
use irq_routing::TooManyGsis;
use irq_routing::kvm_table;
use irq_routing::{
    Change, ChangeCount, GsiSpace, IrqLineError, Pin, Route, RouteError, Router, Routing,
};
use msi_types::{Delivery, DeviceId, Gsi, Level, Line, MsiMessage};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const GSIS: u32 = 300;
const FIRST_ALLOCATED: u32 = 100;
const SPACE: GsiSpace = GsiSpace::new(GSIS).with_first_allocated(FIRST_ALLOCATED);

fn pin(number: u32) -> Route {
    Route::Pin(Pin::new(number).unwrap())
}

fn message(device: u32, event: u32) -> Route {
    Route::to_its(DeviceId::new(device), MsiMessage { address: Controller::ITS, data: event })
}

fn router(space: GsiSpace) -> (Router, Arc<Controller>) {
    let controller = Arc::new(Controller::default());
    (Router::new(space, controller.inputs()).unwrap(), controller)
}

#[derive(Clone, Debug)]
enum Step {
    Commit(Vec<(u32, Option<Route>)>),
    Replace(Vec<(u32, Route)>),
    Allocate,
    Release(Vec<usize>),
}

fn routes() -> impl Strategy<Value = Route> {
    prop_oneof![
        (0..Pin::COUNT).prop_map(pin),
        (0u32..4, 0u32..4).prop_map(|(device, event)| message(device, event))
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let gsi = || prop_oneof![0u32..8, 98u32..104, 296u32..302];
    prop_oneof![
        4 => prop::collection::vec((gsi(), prop::option::of(routes())), 0..6)
            .prop_map(Step::Commit),
        1 => prop::collection::vec((gsi(), routes()), 0..6).prop_map(Step::Replace),
        2 => Just(Step::Allocate),
        1 => prop::collection::vec(0usize..8, 0..4).prop_map(Step::Release),
    ]
}

/// Simplest possible model of a router.
#[derive(Default)]
struct Model {
    routes: BTreeMap<u32, Route>,
    set: bool,
    taken: std::collections::BTreeSet<u32>,
}

impl Model {
    fn route(&self, gsi: u32) -> Option<Route> {
        let identity = || (!self.set && gsi < GSIS).then(|| pin(gsi));
        self.routes.get(&gsi).copied().or_else(identity)
    }

    fn commit(&mut self, changes: &[(u32, Option<Route>)]) -> Option<ChangeCount> {
        if changes.iter().any(|(gsi, _)| *gsi >= GSIS) {
            return None;
        }
        self.set |= !changes.is_empty();
        let mut counts = ChangeCount::default();
        for (gsi, route) in changes {
            let redundant = self.routes.get(gsi) == route.as_ref();
            *(if redundant { &mut counts.redundant } else { &mut counts.made }) += 1;
            match route {
                Some(route) => {
                    self.taken.insert(*gsi);
                    self.routes.insert(*gsi, *route)
                }
                None => self.routes.remove(gsi),
            };
        }
        Some(counts)
    }

    fn replace(&mut self, routes: &[(u32, Route)]) -> bool {
        let new: BTreeMap<_, _> = routes.iter().copied().collect();
        let valid = new.len() == routes.len() && new.keys().all(|gsi| *gsi < GSIS);
        if valid {
            self.taken.extend(new.keys());
            self.routes = new;
            self.set = true;
        }
        valid
    }

    fn allocate(&mut self) -> Option<u32> {
        let free = (FIRST_ALLOCATED..GSIS).find(|gsi| !self.taken.contains(gsi));
        self.taken.extend(free);
        free
    }

    fn release(&mut self, gsis: &[u32]) -> bool {
        let range = FIRST_ALLOCATED..GSIS;
        let mut seen = std::collections::BTreeSet::new();
        let valid = gsis
            .iter()
            .all(|gsi| range.contains(gsi) && self.taken.contains(gsi) && seen.insert(*gsi));
        if valid {
            for gsi in gsis {
                self.taken.remove(gsi);
                self.routes.remove(gsi);
            }
        }
        valid
    }
}

proptest! {
    #[test]
    fn router_agrees_with_its_model(steps in prop::collection::vec(steps(), 0..30)) {
        let (router, _) = router(SPACE);
        let mut model = Model::default();
        for step in steps {
            match step {
                Step::Commit(changes) => {
                    let asked: Vec<_> = changes.iter().map(|(gsi, route)| match route {
                        Some(route) => Change::Set(Gsi::new(*gsi), *route),
                        None => Change::Clear(Gsi::new(*gsi)),
                    }).collect();
                    prop_assert_eq!(router.commit(&asked).ok(), model.commit(&changes));
                }
                Step::Replace(routes) => {
                    let asked: Vec<_> =
                        routes.iter().map(|(gsi, route)| (Gsi::new(*gsi), *route)).collect();
                    prop_assert_eq!(router.replace(&asked).is_ok(), model.replace(&routes));
                }
                Step::Allocate => {
                    prop_assert_eq!(router.allocate().ok().map(Gsi::get), model.allocate());
                }
                Step::Release(places) => {
                    let given: Vec<_> = model.taken.iter().copied().collect();
                    let gsis: Vec<_> =
                        places.iter().map(|at| given.get(*at).copied().unwrap_or(299)).collect();
                    let asked: Vec<_> = gsis.iter().copied().map(Gsi::new).collect();
                    prop_assert_eq!(router.release(&asked).is_ok(), model.release(&gsis));
                }
            }
            for gsi in (0..8).chain(98..108).chain(294..304).chain([5000, u32::MAX]) {
                prop_assert_eq!(router.route(Gsi::new(gsi)), model.route(gsi), "GSI {}", gsi);
            }
            let all: Vec<_> =
                model.routes.iter().map(|(gsi, route)| (Gsi::new(*gsi), *route)).collect();
            prop_assert_eq!(router.routes(), all);
        }
    }

    #[test]
    fn a_table_round_trips_through_the_kvm_layout(
        routes in prop::collection::btree_map((0u32..300).prop_map(Gsi::new), routes(), 0..40),
    ) {
        let (router, _) = router(SPACE);
        let routes: Vec<_> = routes.into_iter().collect();
        router.replace(&kvm_table::decode(&kvm_table::encode(&routes)).unwrap()).unwrap();
        prop_assert_eq!(router.routes(), routes);
    }
}

#[test]
fn a_doorbell_without_device_ids_ignores_the_device_id() {
    let (router, controller) = router(SPACE);
    let frame = MsiMessage { address: Controller::FRAME, data: 80 };
    let device = DeviceId::new(3);
    router
        .commit(&[
            Change::Set(Gsi::new(7), Route::to_its(device, frame)),
            Change::Set(Gsi::new(8), Route::to_doorbell(frame)),
        ])
        .unwrap();

    assert_eq!(router.signal(Gsi::new(7)), Ok(Delivery::Pending));
    assert_eq!(router.signal(Gsi::new(8)), Ok(Delivery::Pending));

    assert_eq!(controller.heard(), [Heard::Rung(80), Heard::Rung(80)]);
}

#[test]
fn irq_line_addresses_intids_not_gsis() {
    let (router, controller) = router(SPACE);
    router.replace(&[(Gsi::new(40), pin(1))]).unwrap();

    assert_eq!(router.irq_line(0x0100_0028, Level::High), Ok(Delivery::Pending));
    let cpu = msi_types::Cpu::new(1);
    assert_eq!(router.irq_line(0x0201_001b, Level::Low), Ok(Delivery::Pending));
    assert_eq!(
        router.irq_line(0x0001_0000, Level::High),
        Err(IrqLineError::DrivenByController(cpu))
    );

    let ppi = Line::Ppi { cpu, intid: 27 };
    assert_eq!(
        controller.heard(),
        [Heard::Line(Line::Spi(40), Level::High), Heard::Line(ppi, Level::Low)]
    );
}

#[test]
fn a_gsi_space_beyond_the_maximum_is_refused() {
    let controller = Arc::new(Controller::default());
    let space = GsiSpace::new(GsiSpace::MAX + 1).with_first_allocated(0);
    assert_eq!(
        Router::new(space, controller.inputs()).unwrap_err(),
        TooManyGsis(GsiSpace::MAX + 1)
    );
}

#[test]
fn the_gsis_exhausted_error_names_the_limit() {
    let (router, _) = router(GsiSpace::new(4096).with_first_allocated(4094));
    router.allocate().unwrap();
    router.allocate().unwrap();

    let exhausted = router.allocate().unwrap_err();

    assert_eq!(exhausted, RouteError::GsisExhausted { first: Gsi::new(4094), limit: 4096 });
    let said = "no GSI is free: all from 4094 up to the limit of 4096 are in use";
    assert_eq!(exhausted.to_string(), said);
}
