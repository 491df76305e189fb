//! Queries a description, and checks that the results are consistent.

use gic_firmware::lint::{self, KnownRegisters};
use gic_firmware::{Description, PciHost, Route, Via};
use msi_types::{DeviceId, RequesterId};

/// Runs every query that is needed to build a machine, and checks the results.
pub fn check(description: &Description) {
    for controller in &description.controllers {
        _ = controller.doorbell(DeviceId::new(u32::MAX));
        _ = description.doorbells(controller);
    }
    for host in &description.hosts {
        for requester in [0, 1, 0x100, 0xffff, 0x1_0000, u32::MAX].map(RequesterId::new) {
            if let Ok(route) = description.route(host, requester) {
                check_route(description, host, requester, route);
            }
        }
    }
    for device in &description.devices {
        _ = description.device_spans(device);
        description
            .platform_routes(device)
            .into_iter()
            .flatten()
            .for_each(|route| check_target(description, route));
    }
    let known = KnownRegisters {
        gicd_typer: Some(0),
        gicr_typer: vec![0],
        gits_typer: description.controllers.iter().map(|its| (its.id.clone(), 0)).collect(),
    };
    assert!(lint::compare(description, description).is_empty());
    for finding in lint::check(description, &known) {
        assert!(!finding.message.is_empty());
    }
}

/// Checks that a route targets an enabled controller and lies within its host's span.
fn check_route(description: &Description, host: &PciHost, requester: RequesterId, route: Route) {
    check_target(description, route);
    let mut spans = description.host_spans(host);
    let span = spans.find(|span| span.via == route.via).expect("every route has a span");
    assert_eq!(span.controller, route.controller);
    if let Via::Map(_) = route.via {
        let mask = host.msi.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
        let offset = (requester.get() & mask) - span.rid_base.get();
        assert!(offset < span.length, "the route is outside its span");
        assert_eq!(route.device_id.get(), span.device_id_base.get() + offset);
    } else {
        assert_eq!(route.device_id.get(), requester.get());
    }
}

fn check_target(description: &Description, route: Route) {
    let controller =
        description.controller(route.controller).expect("every route has a controller");
    assert!(controller.status.is_enabled(), "the route's controller is disabled");
}
