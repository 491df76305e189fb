//! Reads a server's tables, compiled by `iasl` from the sources next to them. The machine has eight
//! ITSes, four segments, SMMUs with and without wired interrupts, performance monitor counter
//! groups, and ID mappings whose counts are one too high.

use super::bytes::{describe, rules};
use gic_firmware::{ControllerKind, Description, NoRoute, PciHost, Role, Rule};
use msi_types::RequesterId;

fn machine() -> Description {
    let tables: [&[u8]; 3] = [
        include_bytes!("../../data/server/apic.aml"),
        include_bytes!("../../data/server/iort.aml"),
        include_bytes!("../../data/server/mcfg.aml"),
    ];
    describe(&tables.map(<[u8]>::to_vec))
}

fn host(machine: &Description, segment: u32) -> &PciHost {
    let is_meant =
        |host: &&PciHost| host.segment.as_ref().is_some_and(|stated| stated.value == segment);
    machine.hosts.iter().find(is_meant).expect("a host of this segment")
}

/// Returns the ITS and the DeviceID of a requester.
fn route(machine: &Description, segment: u32, rid: u32) -> Result<(String, u32), NoRoute> {
    let route = machine.route(host(machine, segment), RequesterId::new(rid))?;
    let its = machine.controller(route.controller).expect("an ITS");
    Ok((its.id.to_string(), route.device_id.get()))
}

fn at(its: u32, device: u32) -> (String, u32) {
    (format!("MADT/ITS@{its}"), device)
}

#[test]
fn eight_itses_are_described() {
    let machine = machine();
    let its = machine.controllers.iter().filter(|one| one.kind == ControllerKind::Its);
    assert_eq!((its.count(), machine.cpus.len(), machine.hosts.len()), (8, 8, 4));
}

#[test]
fn each_segment_routes_to_its_own_its() {
    let machine = machine();
    assert_eq!(route(&machine, 0, 0x1234), Ok(at(0, 0x1_1234)));
    assert_eq!(route(&machine, 2, 0x7fff), Ok(at(3, 0x5_7fff)));
    assert!(matches!(route(&machine, 2, 0x8000), Err(NoRoute::Unmapped(_))));
    // The ITS group has two ITSes, of which the first is used.
    assert_eq!(route(&machine, 3, 0x4000), Ok(at(4, 0x6_4000)));
}

#[test]
fn an_id_count_one_too_high_keeps_the_range_boundary() {
    let machine = machine();
    assert_eq!(rules(&machine), [Rule::IdCount; 2]);
    assert_eq!(route(&machine, 1, 0x7fff), Ok(at(1, 0x2_7fff)));
    assert_eq!(route(&machine, 1, 0x8000), Ok(at(2, 0x3_8000)));
    assert_eq!(route(&machine, 3, 0x5fff), Ok(at(4, 0x6_5fff)));
    assert_eq!(route(&machine, 3, 0x6000), Ok(at(3, 0x6_6000)));
}

#[test]
fn nodes_with_single_mappings_become_devices() {
    let machine = machine();
    let devices: Vec<_> = machine
        .devices
        .iter()
        .map(|device| {
            let ids: Vec<_> =
                machine.device_spans(device).iter().map(|span| span.device_id_base.get()).collect();
            let streams: Vec<_> =
                device.iommus.iter().filter_map(|passed| passed.stream_id()).collect();
            assert_eq!(device.role, Role::Device);
            (device.id.as_str(), ids, streams)
        })
        .collect();
    assert_eq!(
        devices,
        [
            ("IORT/SMMUv3@2b000000", vec![0x100], vec![]),
            ("\\_SB.DMA0", vec![0x40], vec![]),
            ("\\_SB.ETH0", vec![0x221], vec![0x21]),
            ("\\_SB.SATA", vec![0x222, 0x223], vec![0x22, 0x23]),
            ("IORT/PMCG@2b002000", vec![0x101], vec![]),
        ]
    );
}
