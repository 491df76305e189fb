//! Tests for CPUs, the GIC and MSI controllers from a MADT.
//!
//! Reads a server's tables, compiled by `iasl` from the sources next to them. The machine has eight
//! ITSes, four segments, SMMUs with and without wired interrupts, performance monitor counter
//! groups, and ID mappings whose counts are one too high.

use super::bytes::{describe, gicc, gicd, gicr, its, madt, msi_frame, rules, usual_madt};
use gic_arch::{Affinity, IntId};
use gic_firmware::{
    Coherence, ControllerKind, Description, GicVersion, IntIdSpan, NoRoute, PciHost, Region, Role,
    Rule, Status,
};
use msi_types::RequesterId;

#[test]
fn gicv3_with_its_is_described() {
    let machine = describe(&[usual_madt()]);
    assert_eq!(machine.findings, []);
    assert_eq!(machine.compatible, ["MACHINE", "VENDOR"]);
    assert_eq!(machine.model.unwrap().value, "VENDOR MACHINE");
    let gic = machine.gic.unwrap();
    assert_eq!((gic.version.value, gic.distributor.base()), (GicVersion::V3, 0x800_0000));
    assert_eq!(gic.redistributors, [Region::new(0x80a_0000, 0x4_0000).unwrap().into()]);
    assert_eq!(gic.coherence.value, Coherence::ByRegister);
    let ids: Vec<_> = machine.controllers.iter().map(|its| its.id.as_str()).collect();
    assert_eq!(ids, ["MADT/ITS@0", "MADT/ITS@1"]);
    assert_eq!(machine.controllers[1].doorbell(0.into()), Some(0x90b_0040));
    assert_eq!(machine.cpus[1].affinity.value, Affinity::from_mpidr(1));
    assert_eq!(machine.cpus[1].affinity.origin.to_string(), "MADT+0x7e: MPIDR");
}

#[test]
fn gicc_of_every_length_is_read() {
    for length in [76, 80, 82, 88] {
        let machine = describe(&[madt(&[gicc(length, 7, 1, 0x8100, 0), gicd(0x1000_0000, 3)])]);
        assert_eq!(machine.cpus.len(), 1, "{length} bytes");
        assert_eq!(machine.cpus[0].id.as_str(), "MADT/GICC@7");
        assert_eq!(machine.cpus[0].affinity.value, Affinity::from_mpidr(0x8100));
    }
}

#[test]
fn gicc_of_acpi_5_0_has_no_affinity() {
    let machine = describe(&[madt(&[gicc(40, 0, 1, 0, 0), gicd(0x1000, 2)])]);
    assert_eq!(rules(&machine), [Rule::MissingProperty]);
    assert_eq!(machine.gic.unwrap().cpu_interface.unwrap().base(), 0x2c00_0000);
}

#[test]
fn gicc_that_is_cut_off_is_reported() {
    let machine =
        describe(&[madt(&[gicc(75, 0, 1, 0, 0), gicd(0x1000_0000, 3), gicc(82, 1, 1, 1, 0)])]);
    assert_eq!(rules(&machine), [Rule::MalformedTable]);
    assert_eq!(machine.findings[0].origin.to_string(), "MADT+0x2c");
    assert_eq!(machine.cpus.len(), 1, "the walk continues after it");
}

#[test]
fn gicc_addresses_locate_redistributors_without_regions() {
    let cpus = [gicc(82, 0, 1, 0, 0x100_0000), gicc(82, 1, 1 << 3 | 1 << 4, 1, 0x300_0000)];
    let off = gicc(82, 2, 0, 2, 0x500_0000);
    let structures =
        |version| [cpus.as_slice(), &[off.clone(), gicd(0x1000_0000, version)]].concat();
    let gic = describe(&[madt(&structures(3))]).gic.unwrap();
    let region = |base, size| Region::new(base, size).unwrap().into();
    assert_eq!(gic.redistributors, [region(0x100_0000, 0x2_0000), region(0x300_0000, 0x2_0000)]);
    assert_eq!(gic.coherence.value, Coherence::NonCoherent);
    assert_eq!(gic.redistributor_stride, None);
    let gic = describe(&[madt(&structures(4))]).gic.unwrap();
    assert_eq!(gic.redistributors[0].size(), 0x4_0000);
    assert_eq!(gic.redistributor_stride.unwrap().value, 0x4_0000);
    let with_region = [structures(3), vec![gicr(0, 0x900_0000, 0x8_0000)]].concat();
    let gic = describe(&[madt(&with_region)]).gic.unwrap();
    assert_eq!(gic.redistributors, [region(0x900_0000, 0x8_0000)]);
}

#[test]
fn unstated_gic_version_is_inferred_from_redistributors() {
    let version = |structures: &[Vec<u8>]| describe(&[madt(structures)]).gic.unwrap().version.value;
    assert_eq!(version(&[gicc(76, 0, 1, 0, 0), gicd(0x1000_0000, 0)]), GicVersion::V2);
    assert_eq!(version(&[gicc(76, 0, 1, 0, 0x1000), gicd(0x1000_0000, 0)]), GicVersion::V3);
    assert_eq!(version(&[gicr(0, 0x2000_0000, 0x2_0000), gicd(0x1000_0000, 0)]), GicVersion::V3);
    assert_eq!(version(&[gicd(0x1000_0000, 1)]), GicVersion::V2);
}

#[test]
fn cpu_that_comes_online_later_is_disabled() {
    let machine =
        describe(&[madt(&[gicc(82, 0, 1, 0, 0), gicc(82, 1, 1 << 3, 1, 0), gicd(0x1000_0000, 3)])]);
    let statuses: Vec<_> = machine.cpus.iter().map(|cpu| cpu.status.value).collect();
    assert_eq!(statuses, [Status::Enabled, Status::Disabled]);
}

#[test]
fn msi_frames_become_v2m_controllers() {
    let frames = [msi_frame(3, 0x2000, 1, 16, 80), msi_frame(4, 0x3000, 0, 9, 9)];
    let machine = describe(&[madt(&[&[gicd(0x1000, 2)], frames.as_slice()].concat())]);
    assert_eq!(machine.findings, []);
    let [first, second] = machine.controllers.as_slice() else { panic!("two frames") };
    assert_eq!((first.id.as_str(), &first.kind), ("MADT/MSI-frame@3", &ControllerKind::V2m));
    assert_eq!(first.ranges[0].value, IntIdSpan::new(IntId::new(80), 16).unwrap());
    assert_eq!(second.ranges, [], "MSI_TYPER is used");
    assert_eq!(second.doorbell(0.into()), Some(0x3040));
}

#[test]
fn non_coherent_flags_are_read() {
    let machine = describe(&[madt(&[
        gicd(0x1000_0000, 3),
        gicr(1, 0x1000, 0x2_0000),
        its(1, 0, 0x4000_0000),
        its(0, 1, 0x5000_0000),
    ])]);
    assert_eq!(machine.gic.unwrap().coherence.value, Coherence::NonCoherent);
    let coherences: Vec<_> = machine.controllers.iter().map(|its| its.coherence.value).collect();
    assert_eq!(coherences, [Coherence::NonCoherent, Coherence::ByRegister]);
}

#[test]
fn gicv5_structures_are_reported_and_describe_no_gic() {
    let irs = [&[28, 32, 5][..], &[0; 29]].concat();
    let its = [&[29, 16][..], &[0; 14]].concat();
    let machine = describe(&[madt(&[gicc(88, 0, 1, 0, 0), irs, its])]);
    assert_eq!(rules(&machine), [Rule::OtherGicVersion]);
    let message = &machine.findings[0].message;
    assert_eq!(message, "the machine has a GICv5: IRS, ITS configuration frame");
    assert_eq!(machine.gic, None);
    assert_eq!(machine.controllers, []);
}

#[test]
fn duplicate_gicds_its_ids_and_affinities_are_reported() {
    let machine = describe(&[madt(&[
        gicd(0x1000_0000, 3),
        gicd(0x1000, 3),
        its(0, 5, 0x20_0000),
        its(0, 5, 0x10_0000),
        gicc(82, 0, 1, 0, 0),
        gicc(82, 1, 1, 0, 0),
        gicc(82, 2, 1, 1 << 24, 0),
    ])]);
    let expected = [
        Rule::SeveralDistributors,
        Rule::DuplicateId,
        Rule::DuplicateAffinity,
        Rule::MalformedProperty,
    ];
    assert_eq!(rules(&machine), expected);
    assert_eq!(machine.controllers.len(), 1);
}

#[test]
fn madt_structures_of_other_architectures_are_ignored() {
    let local_apic = vec![0, 8, 0, 0, 1, 0, 0, 0];
    let machine = describe(&[madt(&[local_apic, gicd(0x1000_0000, 3)])]);
    assert_eq!(machine.findings, []);
    assert!(machine.gic.is_some());
}

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
