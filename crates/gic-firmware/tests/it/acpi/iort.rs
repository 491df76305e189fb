//! Tests for requesters and their paths to controllers.

use super::bytes::{
    Mapping, describe, gicc, gicd, gicr, iort, its, its_group, madt, mcfg, msi_frame,
    named_component, node, offset, pmcg, root_complex, rules, smmu_v2, smmu_v3, usual_madt,
};
use gic_firmware::{
    BusRange, ConfigAccess, ControllerKind, Description, IommuIndex, NoRoute, PciHost, Region,
    Role, Rule, Target, Via,
};
use msi_types::RequesterId;
use proptest::collection::vec;
use proptest::prelude::*;

const SINGLE: u32 = 1;
const GROUP: u32 = 48;

/// Returns the usual machine with these nodes after the group of ITS 1.
fn machine(nodes: &[Vec<u8>]) -> Description {
    let nodes = [&[its_group(&[1])], nodes].concat();
    describe(&[usual_madt(), mcfg(&[(0x10_0000_0000, 0, 0, 0xff)]), iort(&nodes)])
}

/// Returns the DeviceID of a requester behind `host`, and the index of its controller.
fn device(machine: &Description, host: &PciHost, rid: u32) -> Result<(u32, usize), NoRoute> {
    let route = machine.route(host, RequesterId::new(rid))?;
    Ok((route.device_id.get(), route.controller.get()))
}

#[test]
fn root_complex_maps_requesters() {
    let machine = machine(&[root_complex(0, &[[0x100, 0xff, 0x2000, GROUP, 0]])]);
    assert_eq!(machine.findings, []);
    let host = &machine.hosts[0];
    assert_eq!(host.id.as_str(), "MCFG/0000:00-ff");
    let ecam = Region::new(0x10_0000_0000, 256 << 20).unwrap();
    assert_eq!(host.config.as_ref().unwrap().value, ConfigAccess::Ecam(ecam));
    assert_eq!(device(&machine, host, 0x1ff), Ok((0x20ff, 1)));
    assert_eq!(device(&machine, host, 0x200), Err(NoRoute::Unmapped(RequesterId::new(0x200))));
    assert_eq!(host.iommu.stream(RequesterId::new(0x1ff)), None);
    let origin = &host.msi.map.as_ref().unwrap()[0].origin;
    assert_eq!(origin.to_string(), "IORT+0x6c: ID mapping");
}

#[test]
fn smmu_mappings_compose_with_host_mappings() {
    let smmu = GROUP + 24;
    let complex = root_complex(0, &[[0, 0xff, 0x1000, smmu, 0], [0x100, 0xff, 0x8000, smmu, 0]]);
    let maps: &[Mapping] = &[[0x1080, 0x7f, 0x80, GROUP, 0], [0x8000, 0x7fff, 0x1_0000, GROUP, 0]];
    for smmu in [smmu_v2(0x900_0000, maps), smmu_v3(3, 0, 74, 0, maps)] {
        let machine = machine(&[smmu, complex.clone()]);
        assert_eq!(rules(&machine), [Rule::UnmappedStream]);
        let host = &machine.hosts[0];
        let stream = |rid| host.iommu.stream(RequesterId::new(rid));
        assert_eq!(stream(0xff), Some((IommuIndex::new(0), 0x10ff)));
        assert_eq!(stream(0x101), Some((IommuIndex::new(0), 0x8001)), "not by the SMMU's map");
        assert_eq!(stream(0x200), None);
        assert!(machine.iommus[0].id.as_str().starts_with("IORT/SMMUv"));
        assert_eq!(device(&machine, host, 0x80), Ok((0x80, 1)));
        assert_eq!(device(&machine, host, 0x1ff), Ok((0x1_00ff, 1)));
        assert!(device(&machine, host, 0x7f).is_err(), "the SMMU does not map it");
    }
}

#[test]
fn an_overlong_id_mapping_leaves_its_last_id_to_the_next_mapping() {
    let complex = root_complex(0, &[[0, 0x100, 0, GROUP, 0], [0x100, 0x100, 0x8000, GROUP, 0]]);
    let machine = machine(&[complex]);
    assert_eq!(rules(&machine), [Rule::IdCount]);
    let host = &machine.hosts[0];
    assert_eq!(device(&machine, host, 0xff), Ok((0xff, 1)));
    assert_eq!(device(&machine, host, 0x100), Ok((0x8000, 1)));
    assert_eq!(device(&machine, host, 0x200), Ok((0x8100, 1)), "no other range begins there");
}

#[test]
fn single_mapping_assigns_one_device_id_to_every_requester() {
    let machine = machine(&[root_complex(0, &[[0, 0, 0x77, GROUP, SINGLE], [0, 9, 0, GROUP, 0]])]);
    let host = &machine.hosts[0];
    for rid in [0, 1, 0xffff] {
        assert_eq!(device(&machine, host, rid), Ok((0x77, 1)));
    }
}

#[test]
fn single_mapping_after_ranges_is_reported() {
    let machine = machine(&[root_complex(0, &[[0, 9, 0, GROUP, 0], [0, 0, 0x77, GROUP, SINGLE]])]);
    assert_eq!(rules(&machine), [Rule::SingleMapping]);
    assert_eq!(device(&machine, &machine.hosts[0], 9), Ok((9, 1)));
}

#[test]
fn named_components_are_identified_by_their_path() {
    let smmu = GROUP + 24;
    let nodes = [
        smmu_v2(0x900_0000, &[[0x40, 0xf, 0x400, GROUP, 0]]),
        named_component("\\_SB.DMA0", &[[0, 0, 0x41, smmu, SINGLE], [0, 0, 7, GROUP, SINGLE]]),
        named_component("\\_SB.MC", &[[0x10, 0xf, 0x500, GROUP, 0]]),
        named_component("\\_SB.NONE", &[]),
    ];
    let machine = machine(&nodes);
    assert_eq!(machine.findings, []);
    let [device, bus] = machine.devices.as_slice() else { panic!("expected two devices") };
    assert_eq!((device.id.as_str(), device.role), ("\\_SB.DMA0", Role::Device));
    let ids: Vec<_> =
        machine.platform_routes(device).into_iter().map(|route| route.unwrap().device_id).collect();
    assert_eq!(ids, [0x401.into(), 7.into()]);
    assert_eq!((bus.id.as_str(), bus.role), ("\\_SB.MC", Role::Bus));
    assert_eq!(machine.route_by(&bus.msi, RequesterId::new(0x12)).unwrap().device_id, 0x502.into());
}

#[test]
fn the_mapping_for_an_smmus_own_messages_routes_no_client() {
    let smmu = GROUP + 24;
    let maps: &[Mapping] = &[[0, 0xffff, 0, GROUP, 0], [0, 0, 0xbeef, GROUP, SINGLE]];
    // Cases as (revision, flags, GSIV, whether the node has a mapping for its own messages).
    let cases = [
        (0, 0, 0, false),
        (1, 0, 0, true),
        (4, 0, 74, false),
        (5, 1 << 4, 74, true),
        (5, 0, 0, false),
    ];
    for (revision, flags, gsiv, has_own) in cases {
        let complex = root_complex(0, &[[0, 0xffff, 0, smmu, 0]]);
        let machine = machine(&[smmu_v3(revision, flags, gsiv, 1, maps), complex]);
        let is_silent = !has_own && gsiv == 0;
        let expected: &[Rule] = if is_silent { &[Rule::SmmuWithoutInterrupts] } else { &[] };
        assert_eq!(rules(&machine), expected);
        let ids: Vec<_> = machine.devices.iter().map(|device| device.id.as_str()).collect();
        let expected: &[&str] = if has_own { &["IORT/SMMUv3@40000000"] } else { &[] };
        assert_eq!(ids, expected, "revision {revision}");
        assert_eq!(device(&machine, &machine.hosts[0], 5), Ok((5, 1)));
    }
}

#[test]
fn a_pmcg_without_a_wired_interrupt_signals_by_msi() {
    let single = [[0, 0, 0x33, GROUP, SINGLE]];
    let machine = machine(&[pmcg(0, &single), pmcg(40, &single)]);
    assert_eq!(machine.devices.len(), 1);
    assert_eq!(machine.devices[0].id.as_str(), "IORT/PMCG@50000000");
    let routes = machine.platform_routes(&machine.devices[0]);
    assert_eq!(routes[0].unwrap().device_id, 0x33.into());
}

#[test]
fn an_smmus_own_mapping_without_the_single_flag_routes_no_client() {
    let smmu = GROUP + 24;
    let maps: &[Mapping] = &[[0, 0xffff, 0xbeef_0000, GROUP, 0], [0, 0xffff, 0, GROUP, 0]];
    let complex = root_complex(0, &[[0, 0xffff, 0, smmu, 0]]);
    let machine = machine(&[smmu_v3(1, 0, 0, 0, maps), complex]);
    assert_eq!(rules(&machine), [Rule::SingleMapping]);
    assert_eq!(device(&machine, &machine.hosts[0], 5), Ok((5, 1)));
}

#[test]
fn a_single_mapping_to_an_smmu_assigns_one_stream_id() {
    let smmu = GROUP + 24;
    let mappings = [[0, 0, 0x77, smmu, SINGLE], [0, 9, 0, smmu, 0]];
    let maps: &[Mapping] = &[[0, 0xffff, 0, GROUP, 0]];
    let machine = machine(&[smmu_v2(0x900_0000, maps), root_complex(0, &mappings)]);
    let host = &machine.hosts[0];
    assert_eq!(host.iommu.map.len(), 1);
    assert_eq!(host.iommu.stream(RequesterId::new(5)), Some((IommuIndex::new(0), 0x77)));
    assert_eq!(device(&machine, host, 5), Ok((0x77, 1)));
}

#[test]
fn msi_frames_beside_an_its_serve_no_host() {
    let structures = [gicd(0x1000, 3), its(0, 0, 0x10_0000), msi_frame(0, 0x2000, 1, 16, 80)];
    let machine = describe(&[madt(&structures), mcfg(&[(0, 0, 0, 0xf)])]);
    assert_eq!(device(&machine, &machine.hosts[0], 8), Err(NoRoute::NotDescribed));
}

#[test]
fn a_pmcg_id_mapping_must_have_the_single_mapping_flag() {
    let machine = machine(&[pmcg(0, &[[0, 0, 0x33, GROUP, 0]])]);
    assert_eq!(rules(&machine), [Rule::SingleMapping]);
    assert_eq!(machine.devices, []);
}

#[test]
fn broken_references_are_reported() {
    let complex = |target| root_complex(0, &[[0, 0xff, 0, target, 0]]);
    let itself = GROUP + 24;
    let smmu = |target| smmu_v2(0x900_0000, &[[0, 0xff, 0, target, 0]]);
    let other = offset(&[its_group(&[1]), smmu(0)]);
    let from = "mapping 0 of root complex of segment 0x0 refers to";
    let cases: [(&[Vec<u8>], &str); 7] = [
        (&[complex(0)], &format!("{from} offset 0x0, where no node starts")),
        (&[complex(GROUP + 4)], &format!("{from} offset 0x34, where no node starts")),
        (&[complex(itself)], &format!("{from} root complex of segment 0x0, which takes no IDs")),
        (
            &[smmu(0xbad), complex(itself)],
            "mapping 0 of SMMUv2@9000000 refers to offset 0xbad, where no node starts",
        ),
        (&[smmu(itself), complex(itself)], "mapping 0 of SMMUv2@9000000 refers to the node itself"),
        (&[smmu(other), smmu(itself), complex(itself)], "the path passes more than 8 IOMMUs"),
        (&[smmu(0x30), its_group(&[]), complex(other)], "the group has no ITS"),
    ];
    for (nodes, message) in cases {
        let machine = machine(nodes);
        assert_eq!(rules(&machine), [Rule::IortReference], "{message}");
        assert_eq!(machine.findings[0].message, message);
        assert!(device(&machine, &machine.hosts[0], 1).is_err());
    }
}

#[test]
fn mapping_to_an_unknown_its_has_no_route() {
    let nodes = [its_group(&[9]), root_complex(0, &[[0, 0xff, 0, GROUP, 0]])];
    let machine = describe(&[usual_madt(), iort(&nodes)]);
    assert_eq!(rules(&machine), [Rule::UnknownIts]);
    let host = &machine.hosts[0];
    assert_eq!(host.id.as_str(), "IORT/root-complex@0000");
    assert_eq!(host.msi.map.as_ref().unwrap()[0].target, Target::Nowhere);
    assert_eq!(device(&machine, host, 1), Err(NoRoute::Nowhere));
}

#[test]
fn id_mappings_that_exceed_32_bits_are_truncated() {
    let machine = machine(&[root_complex(0, &[[0, 0xffff, 0xffff_fff0, GROUP, 0]])]);
    assert_eq!(rules(&machine), [Rule::MapRange]);
    let host = &machine.hosts[0];
    assert_eq!(device(&machine, host, 0xf), Ok((u32::MAX, 1)));
    assert!(device(&machine, host, 0x10).is_err());
}

#[test]
fn each_mcfg_window_describes_its_own_host() {
    let nodes = [
        its_group(&[0]),
        root_complex(2, &[[0, 9, 0, GROUP, 0]]),
        root_complex(2, &[[0, 9, 5, GROUP, 0]]),
    ];
    let windows = mcfg(&[(0x1000_0000, 1, 4, 7), (0x1000_0000, 2, 0, 3), (0x1000_0000, 2, 4, 7)]);
    let machine = describe(&[usual_madt(), iort(&nodes), windows]);
    // The second root complex is meant for segment 1.
    assert_eq!(rules(&machine), [Rule::UnknownSegment, Rule::DuplicateId]);
    let [one, two, three] = machine.hosts.as_slice() else { panic!("expected one per window") };
    let ecam = Region::new(0x1040_0000, 4 << 20).unwrap();
    assert_eq!(one.config.as_ref().unwrap().value, ConfigAccess::Ecam(ecam));
    assert_eq!(one.buses.value, BusRange { first: 4, last: 7 });
    assert_eq!(device(&machine, one, 0), Err(NoRoute::NotDescribed));
    assert_eq!(device(&machine, two, 3), Ok((3, 0)));
    assert_eq!(device(&machine, three, 3), Ok((3, 0)));
}

#[test]
fn impossible_mcfg_windows_are_reported() {
    let windows = mcfg(&[
        (0x1000_0000, 0, 4, 3),
        (0u64.wrapping_sub(0x10_0000), 1, 0, 1),
        (0u64.wrapping_sub(0x10_0000), 2, 4, 5),
    ]);
    let machine = describe(&[usual_madt(), windows]);
    assert_eq!(rules(&machine), [Rule::MalformedProperty; 3]);
    assert_eq!(machine.hosts, []);
}

#[test]
fn the_first_msi_frame_serves_hosts_without_an_its() {
    let frames =
        [gicd(0x1000, 2), msi_frame(0, 0x2000, 1, 16, 80), msi_frame(1, 0x3000, 1, 16, 96)];
    // QEMU's GICv2 machine has such an IORT, and Linux then uses the v2m frame.
    let without_its = iort(&[its_group(&[0]), root_complex(0, &[[0, 0xffff, 0, GROUP, 0]])]);
    for tables in [vec![], vec![without_its]] {
        let machine = describe(&[vec![madt(&frames), mcfg(&[(0, 0, 0, 0xf)])], tables].concat());
        let route = machine.route(&machine.hosts[0], RequesterId::new(8)).unwrap();
        assert_eq!((route.controller.get(), route.via), (0, Via::Parent(0)));
    }
}

#[test]
fn overlong_structures_are_reported() {
    let mut complex = root_complex(0, &[[0, 9, 0, GROUP, 0]]);
    complex[8] = 2; // mappings
    let mut group = its_group(&[0]);
    group[16] = 2; // ITSes
    let mut cut = node(4, 1, &[0; 51], &[]);
    cut[8] = 0;
    let machine = machine(&[complex, group, cut, root_complex(0, &[[0, 9, 0, GROUP, 0]])]);
    assert_eq!(rules(&machine), [Rule::MalformedTable; 3]);
    assert_eq!(device(&machine, &machine.hosts[0], 9), Ok((9, 1)));
}

#[test]
fn unknown_iort_nodes_are_skipped() {
    let machine = machine(&[node(7, 0, &[0; 16], &[]), node(99, 0, &[], &[])]);
    assert_eq!(rules(&machine), [Rule::UnknownRevision]);
}

/// Encodes the draft node for direct LPIs with this revision, and `last` as the last byte of its
/// mark.
fn redistributor_group(revision: u8, last: u8) -> Vec<u8> {
    let mark =
        [0x54, 0x8a, 0x1d, 0x6f, 0x0e, 0x3c, 0x7e, 0x4b, 0x9d, 0x2a, 0x8f, 0x41, 0xc6, 0xb0, 0xe7];
    node(31, revision, &[&mark[..], &[last], &[0; 8]].concat(), &[])
}

fn without_its(nodes: &[Vec<u8>]) -> Description {
    let madt = madt(&[gicd(0x800_0000, 3), gicr(0, 0x80a_0000, 0x4_0000), gicc(82, 0, 1, 0, 0)]);
    describe(&[madt, mcfg(&[(0x10_0000_0000, 0, 0, 0xff)]), iort(nodes)])
}

#[test]
fn a_draft_redistributor_group_describes_a_direct_lpi_controller() {
    let nodes = [
        redistributor_group(0, 0xd3),
        root_complex(0, &[[0, 0xffff, 0, GROUP, 0]]),
        named_component("\\_SB.DMA0", &[[0, 0, 0, GROUP, SINGLE]]),
    ];
    let machine = without_its(&nodes);
    assert_eq!(machine.findings, []);
    let controller = &machine.controllers[0];
    assert_eq!(controller.kind, ControllerKind::DirectLpi);
    assert_eq!(machine.doorbells(controller), [0x80a_0040]);
    assert_eq!(device(&machine, &machine.hosts[0], 5).map(|(_, controller)| controller), Ok(0));
    let route = machine.platform_routes(&machine.devices[0])[0].unwrap();
    assert_eq!(route.controller.get(), 0);
    assert!(machine.devices[0].msi.parents[0].specifier.is_empty());
}

#[test]
fn a_draft_group_with_another_revision_or_guid_is_not_recognized() {
    for group in [redistributor_group(1, 0xd3), redistributor_group(0, 0xd4), node(31, 0, &[], &[])]
    {
        let machine = without_its(&[group, root_complex(0, &[[0, 0xffff, 0, GROUP, 0]])]);
        assert!(rules(&machine).contains(&Rule::IortReference));
        assert_eq!(machine.controllers, []);
    }
}

#[test]
fn a_draft_redistributor_group_beside_an_its_is_not_used() {
    let machine = machine(&[redistributor_group(0, 0xd3), redistributor_group(0, 0xd3)]);
    assert_eq!(rules(&machine), [Rule::DirectLpiWithIts, Rule::DuplicateId]);
    let enabled = machine.controllers.iter().filter(|one| one.status.is_enabled());
    assert!(enabled.map(|one| &one.kind).eq([&ControllerKind::Its; 2]));
}

/// Models the specification's text with Linux's leniency, one ID at a time. The first of `mappings`
/// that contains `id` determines the output. If `id` is the last ID of that mapping, a later
/// mapping that begins with `id` takes precedence.
fn map_by_the_book(mappings: &[Mapping], id: u32) -> Option<(u32, u32)> {
    let mut found = None;
    for &[input, more, output, target, _] in mappings {
        let holds = (input..=input + more).contains(&id);
        match found {
            None if holds => {
                found = Some((output + (id - input), target));
                if more == 0 || id != input + more {
                    break;
                }
            }
            Some(_) if id == input => return Some((output, target)),
            _ => {}
        }
    }
    found
}

/// Generates mappings of small ranges. Two mappings of a node may share one ID at their ends, but
/// do not overlap otherwise.
fn ranges(target: u32) -> impl Strategy<Value = Vec<Mapping>> {
    vec((0..6u32, 0..40u32, 0..300u32, any::<bool>()), 0..6).prop_map(move |parts| {
        let mut next = 0;
        let range = |(gap, more, output, too_high): (u32, u32, u32, bool)| {
            let input = next + gap;
            next = input + more + 1;
            [input, more + u32::from(too_high), output, target, 0]
        };
        parts.into_iter().map(range).collect()
    })
}

proptest! {
    #[test]
    fn mapping_composition_matches_the_specification(
        outer in ranges(GROUP + 24),
        inner in ranges(GROUP),
    ) {
        let machine = machine(&[smmu_v2(0, &inner), root_complex(0, &outer)]);
        for id in 0..300 {
            let expected =
                map_by_the_book(&outer, id).and_then(|(id, _)| map_by_the_book(&inner, id));
            let found = device(&machine, &machine.hosts[0], id).ok();
            prop_assert_eq!(found.map(|(id, _)| id), expected.map(|(id, _)| id), "{:#x}", id);
        }
    }
}
