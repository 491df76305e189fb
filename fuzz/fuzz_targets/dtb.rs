//! A devicetree from an untrusted source: the parser must answer any bytes, and what it answers must hold together.
//!
//! Inputs that begin with a devicetree's magic number go to the parser as they are. All others are read as a
//! program that assembles a well-formed devicetree of the nodes and properties that the parser looks at, so that
//! the search gets past the format to the meaning; a few bytes of the result may then be overwritten.
#![no_main]

use doorbell_fuzz::devicetree::{MAGIC, assemble};
use gic_firmware::{Description, PciHost, Route, Via, devicetree};
use libfuzzer_sys::fuzz_target;
use msi_types::{DeviceId, RequesterId};

fuzz_target!(|input: &[u8]| {
    if input.starts_with(&MAGIC) {
        return answer(devicetree::parse(input));
    }
    let Some((&first, rest)) = input.split_first() else { return };
    let (overwrites, program) = rest.split_at(rest.len().min(3 * usize::from(first % 8)));
    let mut blob = assemble(program);
    for overwrite in overwrites.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([overwrite[0], overwrite[1]])) % blob.len();
        blob[at] = overwrite[2];
    }
    let parsed = devicetree::parse(&blob);
    if overwrites.is_empty() {
        assert!(parsed.is_ok(), "a well-formed devicetree was refused: {parsed:?}");
    }
    answer(parsed);
});

/// Checks that the parser's answer is consistent.
fn answer(parsed: Result<Description, devicetree::DtbError>) {
    match parsed {
        Ok(description) => check(&description),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Asks a description everything that a machine builder asks.
fn check(description: &Description) {
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
    for finding in &description.findings {
        assert!(!finding.message.is_empty());
    }
}

/// A route leads to an enabled controller, and lies in the span of the statement that makes it.
fn check_route(description: &Description, host: &PciHost, requester: RequesterId, route: Route) {
    check_target(description, route);
    let spans = description.host_spans(host);
    let span = spans.iter().find(|span| span.via == route.via).expect("a route has its span");
    assert_eq!(span.controller, route.controller);
    if let Via::Map(_) = route.via {
        let mask = host.msi.mask.as_ref().map_or(u32::MAX, |mask| mask.value);
        let offset = (requester.get() & mask) - span.rid_base.get();
        assert!(offset < span.length, "a route outside its span");
        assert_eq!(route.device_id.get(), span.device_id_base.get() + offset);
    } else {
        assert_eq!(route.device_id.get(), requester.get());
    }
}

fn check_target(description: &Description, route: Route) {
    let controller = description.controller(route.controller).expect("a route leads to a controller");
    assert!(controller.status.is_enabled(), "a route leads to a disabled controller");
}
