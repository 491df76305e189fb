//! Checks each rule with values on both sides of its limits.
//!
//! Findings about several GICs, and about the properties that connect a secondary GIC to its
//! parent.

use super::findings;
use gic_firmware::lint::{KnownRegisters, check};
use gic_firmware::{
    Controller, ControllerIndex, Description, Fact, MapEntry, MsiRouting, PciHost, Region, Rule,
    Target,
};
use proptest::collection::vec;
use proptest::prelude::*;

fn breaks(rule: Rule, change: &str, known: &KnownRegisters) -> bool {
    findings(change, known).iter().any(|finding| finding.rule == rule)
}

#[test]
fn one_common_device_id_is_reported_as_shared() {
    let shares = |device: &str| {
        let change = format!("&dma {{ msi-parent = <&its {device}>; }};");
        breaks(Rule::SharedDeviceId, &change, &KnownRegisters::default())
    };
    assert!(shares("0x0") && shares("0xffff"));
    assert!(!shares("0x10000"));
}

#[test]
fn buses_outside_the_bus_range_share_no_device_ids() {
    let shares = |device: &str| {
        let change = format!(
            "&pcie {{ bus-range = <0x10 0x1f>; }}; &dma {{ msi-parent = <&its {device}>; }};"
        );
        breaks(Rule::SharedDeviceId, &change, &KnownRegisters::default())
    };
    assert!(shares("0x1000") && shares("0x1fff"));
    assert!(!shares("0xfff") && !shares("0x2000"));
}

#[test]
fn a_map_mask_that_makes_buses_share_device_ids_is_reported() {
    let shares = |mask: &str, map: &str| {
        let change = format!("&pcie {{ msi-map-mask = <{mask}>; msi-map = <{map}>; }};");
        breaks(Rule::SharedDeviceId, &change, &KnownRegisters::default())
    };
    assert!(shares("0xff", "0x0 &its 0x0 0x10000") && shares("0xff", "0x0 &its 0x0 0x100"));
    assert!(shares("0xfff", "0x0 &its 0x0 0x10000"));
    // Functions of a device may share their DeviceID.
    assert!(!shares("0xfff8", "0x0 &its 0x0 0x10000"));
    assert!(!shares("0xffff", "0x0 &its 0x0 0x10000"));
    // A host with few DeviceIDs assigns them to individual functions.
    assert!(!shares("0x1ff", "0x0 &its 0x10 0x1 0x100 &its 0x11 0x7"));
    let one_bus = "&pcie { msi-map-mask = <0xff>; bus-range = <0x3 0x3>; };";
    assert!(!breaks(Rule::SharedDeviceId, one_bus, &KnownRegisters::default()));
}

#[test]
fn stream_ids_shared_by_maps_and_devices_are_reported() {
    let shares = |change: &str| breaks(Rule::SharedStreamId, change, &KnownRegisters::default());
    assert!(shares("&dma { iommus = <&smmu 0xffff>; };"));
    assert!(!shares("&dma { iommus = <&smmu 0x10000>; };"));
    // Requesters on buses that do not exist, or that a mask hides, use no StreamID.
    assert!(!shares("&pcie { bus-range = <0x0 0xf>; }; &dma { iommus = <&smmu 0x1000>; };"));
    assert!(!shares("&pcie { iommu-map-mask = <0x0>; }; &dma { iommus = <&smmu 0x1>; };"));
    assert!(shares("&pcie { iommu-map-mask = <0x0>; }; &dma { iommus = <&smmu 0x0>; };"));
    // Devices that send no messages are checked as well, and the mask in the second cell counts.
    let gpu = "/ { gpu@1000 { reg = <0x0 0x1000 0x0 0x1000>; iommus = <&smmu 0x20>; }; };";
    assert!(shares(gpu));
    let masked = "&smmu { #iommu-cells = <2>; }; &pcie { iommu-map = <0x0 &smmu 0x100 0x0 0x1>; }; \
                  &dma { iommus = <&smmu 0xff00 0xff>; };";
    assert!(!shares(masked));
    assert!(shares(&masked.replace("0x100 0x0 0x1", "0xff80 0x0 0x1")));
}

#[test]
fn partial_misaligned_and_overlapping_frames_are_reported() {
    let breaks_size = |rule, size: &str| {
        let change =
            format!("&gic {{ reg = <0x0 0x8000000 0x0 0x10000>, <0x0 0x80a0000 0x0 {size}>; }};");
        breaks(rule, &change, &KnownRegisters::default())
    };
    assert!(!breaks_size(Rule::RedistributorSize, "0x60000"));
    assert!(breaks_size(Rule::RedistributorSize, "0x5ffff"));
    let smmu = |reg: &str| format!("&smmu {{ reg = <0x0 {reg}>; }};");
    let known = KnownRegisters::default();
    assert!(breaks(Rule::FrameSize, &smmu("0x9050000 0x0 0x10000"), &known));
    assert!(breaks(Rule::FrameAlignment, &smmu("0x9058000 0x0 0x20000"), &known));
    assert!(breaks(Rule::RegistersOverlap, &smmu("0x8080000 0x0 0x20000"), &known));
    let ecam = "&pcie { reg = <0x0 0x0 0x0 0x10000000>; };";
    assert!(breaks(Rule::RegistersOverlap, ecam, &known));
}

#[test]
fn only_spis_beyond_the_last_implemented_one_are_reported() {
    let known = KnownRegisters { gicd_typer: Some(0x3_0007), ..KnownRegisters::default() };
    let is_beyond = |spi: u32| {
        let change = format!("&dma {{ interrupts = <0 {spi} 4>; }};");
        breaks(Rule::SpiBeyondDistributor, &change, &known)
    };
    assert!(!is_beyond(223) && is_beyond(224));
    let highest = KnownRegisters { gicd_typer: Some(0x3_001f), ..KnownRegisters::default() };
    assert!(!breaks(Rule::SpiBeyondDistributor, "&dma { interrupts = <0 987 4>; };", &highest));
}

#[test]
fn an_mbi_range_that_overlaps_a_wired_spi_at_either_end_is_reported() {
    let meets = |range: &str| {
        let change = format!("&gic {{ msi-controller; mbi-ranges = <{range}>; }};");
        breaks(Rule::MsiOverWired, &change, &KnownRegisters::default())
    };
    assert!(meets("72 1") && meets("70 3") && meets("72 8"));
    assert!(!meets("73 8") && !meets("64 8"));
}

/// Generates hosts whose maps assign these DeviceIDs to consecutive requester IDs.
fn hosts(maps: &[Vec<(u32, u32)>]) -> Description {
    let region = |base| Region::new(base, 0x2_0000).expect("it does not wrap");
    let host = |(number, map): (usize, &Vec<(u32, u32)>)| {
        let mut requester = 0;
        let entries = map.iter().map(|&(device, length)| {
            let target = Target::Controller(ControllerIndex::new(0));
            let (rid_base, device_id_base) = (requester.into(), device.into());
            requester += length;
            MapEntry { rid_base, length, target, device_id_base }
        });
        let config = Region::new(0x10_0000_0000 * (number as u64 + 1), 256 << 20);
        let config = config.expect("it does not wrap");
        PciHost {
            msi: MsiRouting {
                map: Some(entries.map(Fact::stated).collect()),
                ..MsiRouting::default()
            },
            ..PciHost::ecam(format!("/pcie@{number}"), config, MsiRouting::default())
        }
    };
    Description {
        controllers: vec![Controller::its("/its", region(0x808_0000))],
        hosts: maps.iter().enumerate().map(host).collect(),
        ..Description::default()
    }
}

proptest! {
    #[test]
    fn device_ids_shared_by_any_two_hosts_are_reported(
        maps in vec(vec((0..200u32, 1..30u32), 1..4), 1..5),
    ) {
        let meets = |(one, length): (u32, u32), (other, more): (u32, u32)| {
            one < other + more && other < one + length
        };
        let is_shared = maps.iter().enumerate().any(|(place, map)| {
            let others = maps.iter().take(place).flatten();
            others.into_iter().any(|other| map.iter().any(|one| meets(*one, *other)))
        });
        let found = check(&hosts(&maps), &KnownRegisters::default());
        let is_found = found.iter().any(|finding| finding.rule == Rule::SharedDeviceId);
        prop_assert_eq!(is_found, is_shared, "{:?}", found);
    }
}

/// Returns the findings for a second GIC with these properties.
fn beside(properties: &str) -> Vec<String> {
    let change = format!(
        "/ {{ gic2: interrupt-controller@7000000 {{ compatible = \"arm,gic-400\"; \
         reg = <0x0 0x7000000 0x0 0x1000>; interrupt-controller; #interrupt-cells = <3>; \
         {properties} }}; }};"
    );
    findings(&change, &KnownRegisters::default())
        .iter()
        .map(|finding| format!("{} {}: {}", finding.rule, finding.origin, finding.message))
        .collect()
}

const PLACE: &str = "/interrupt-controller@7000000";

#[test]
fn unconnected_parent_interrupts_of_a_gic_are_reported() {
    let cases = [
        ("", "interrupts", "it states no interrupt of /interrupt-controller@8000000"),
        (
            "interrupt-parent = <0xdead>; interrupts = <0 9 4>;",
            "interrupt-parent",
            "it refers to no node",
        ),
        ("interrupts-extended = <0xdead 0 9 4>;", "interrupts-extended", "it refers to no node"),
        (
            "interrupt-parent = <&dma>; interrupts = <0 9 4>;",
            "interrupt-parent",
            "/dma-controller@9100000 takes no interrupts",
        ),
    ];
    for (properties, item, message) in cases {
        assert_eq!(beside(properties), [format!("cascaded-gic {PLACE}: {item}: {message}")]);
    }
}

#[test]
fn impossible_parent_interrupts_are_reported() {
    let found = beside("interrupts = <0 9>;");
    let place = "it states no interrupt of /interrupt-controller@8000000";
    let message = format!("cascaded-gic {PLACE}: interrupts: {place}");
    assert!(found.contains(&message), "{found:?}");
    let found = beside("interrupts = <0 988 4>;");
    let absent = "SPI 988 does not exist: SPIs have the numbers 0 to 987; INTID 988 is SPI 956";
    let message = format!("cascaded-gic {PLACE}: interrupts: {absent}");
    assert!(found.contains(&message), "{found:?}");
}

#[test]
fn sound_and_disabled_secondary_gics_yield_no_findings() {
    for properties in [
        "interrupts = <0 9 4>;",
        "interrupts-extended = <&gic 0 9 4>;",
        "status = \"disabled\";",
        "status = \"disabled\"; interrupt-parent = <&gic2>;",
    ] {
        assert_eq!(beside(properties), [""; 0], "{properties}");
    }
}

#[test]
fn a_disabled_parent_gic_is_reported() {
    let change = "interrupt-parent = <&gic3>; interrupts = <0 9 4>; }; \
                  gic3: interrupt-controller@6000000 { compatible = \"arm,gic-400\"; \
                  reg = <0x0 0x6000000 0x0 0x1000>; interrupt-controller; \
                  #interrupt-cells = <3>; status = \"disabled\";";
    let message = "interrupt-parent: /interrupt-controller@6000000 is disabled";
    assert_eq!(beside(change), [format!("cascaded-gic {PLACE}: {message}")]);
}

#[test]
fn a_cycle_of_cascaded_gics_is_reported_as_having_no_root() {
    let found = beside(
        "interrupts = <0 9 4>; }; }; \
         &gic { interrupt-parent = <&gic2>; interrupts = <0 8 4>; }; / { x {",
    );
    let message = "it is cascaded to /interrupt-controller@7000000, so that no GIC is the root";
    let place = "/interrupt-controller@8000000: interrupt-parent";
    assert_eq!(found, [format!("cascaded-gic {place}: {message}")]);
}
