//! Converts descriptions between devicetree and ACPI, and back.

use super::round_trip::{foreign, read, with_frames, with_its};
use gic_firmware::acpi::{Extensions, WriteErrorKind, iort_source};
use gic_firmware::devicetree::{parse, with_node_paths, write, write_source};
use gic_firmware::{ControllerKind, Description, Fact, GicVersion};
use proptest::prelude::*;

/// Returns `machine` without its names, and without facts that only devicetree or only ACPI can
/// express.
fn nameless(machine: Description) -> Description {
    let mut machine = Description {
        model: None,
        compatible: Vec::new(),
        oem_id: None,
        memory: Vec::new(),
        findings: Vec::new(),
        // The writer of ACPI tables omits IOMMUs.
        iommus: Vec::new(),
        ..machine
    };
    if let Some(gic) = &mut machine.gic {
        gic.id = "".into();
        gic.compatible.clear();
        // A devicetree does not distinguish GICv4 from GICv3.
        gic.version = Fact::stated(gic.version.value.min(GicVersion::V3));
    }
    machine.cpus.iter_mut().for_each(|cpu| cpu.id = "".into());
    machine.controllers.iter_mut().for_each(|controller| controller.id = "".into());
    for host in &mut machine.hosts {
        (host.id, host.compatible) = ("".into(), Vec::new());
    }
    machine.devices.iter_mut().for_each(|device| device.id = "".into());
    // A devicetree lists IOMMUs before other devices.
    machine.devices.sort_by_key(|device| {
        let registers: Vec<_> = device.registers.iter().map(|region| region.base()).collect();
        let parents = device.msi.parents.iter();
        let parents: Vec<_> = parents.map(|parent| parent.value.specifier.clone()).collect();
        let map = device.msi.map.iter().flatten();
        let map: Vec<_> = map.map(|entry| (entry.rid_base, entry.device_id_base)).collect();
        (registers, parents, map)
    });
    machine
}

pub(crate) fn as_devicetree(machine: &Description) -> Description {
    let blob = write(&with_node_paths(machine)).expect("the machine can be written");
    parse(&blob).expect("written blobs are well-formed")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn acpi_converts_to_an_equal_devicetree(
        machine in prop_oneof![3 => with_its(), 1 => with_frames()],
    ) {
        let tree = as_devicetree(&machine);
        prop_assert_eq!(nameless(tree.clone()), nameless(machine.clone()));
        prop_assert_eq!(nameless(read(&tree)), nameless(machine));
    }
}

#[test]
fn conversion_preserves_node_paths() {
    let machine = foreign();
    assert_eq!(with_node_paths(&machine), machine);
}

#[test]
fn table_names_become_unique_node_paths() {
    let mut machine = read(&foreign());
    machine.devices.push(machine.devices[0].clone());
    machine.devices[1].id = "\\_SB.PCI0.D000".into();
    let tree = with_node_paths(&machine);
    assert_eq!(tree.cpus[0].id.as_str(), "/cpus/cpu@5");
    let its = &tree.controllers[1].id;
    assert_eq!(its.as_str(), "/interrupt-controller@8000000/msi-controller@20000000");
    assert_eq!(tree.hosts[0].id.as_str(), "/pcie@40000000");
    let devices: Vec<_> = tree.devices.iter().map(|device| device.id.as_str()).collect();
    assert_eq!(devices, ["/d000", "/d000-1"]);
}

#[test]
fn devicetree_source_contains_the_its_node_and_an_msi_parent() {
    let source = write_source(&with_node_paths(&read(&foreign()))).unwrap();
    assert!(source.starts_with("/dts-v1/;"), "{source}");
    for part in [
        "msi-controller@20000000 {",
        "compatible = \"arm,gic-v3-its\";",
        "msi-parent = <0x02 0x09>;",
    ] {
        assert!(source.contains(part), "{part} in {source}");
    }
}

#[test]
fn iort_source_lists_the_id_mappings() {
    let source = iort_source(&foreign(), Extensions::default()).unwrap().unwrap();
    let words: Vec<_> = source.lines().map(str::trim).collect();
    let at = words.iter().position(|line| *line == "PCI Segment Number : 00000000").unwrap();
    let mapping = [
        "Memory Size Limit : 40",
        "Reserved : 000000",
        "",
        "Input base : 00000000",
        "ID Count : 0000FFFF",
        "Output Base : 00000000",
        "Output Reference : 00000048",
        "Flags (decoded below) : 00000000",
        "Single Mapping : 0",
    ];
    assert_eq!(words[at + 1..][..mapping.len()], mapping);
    assert!(words.contains(&"Device Name : \"\\_SB.D000\""), "{source}");
}

#[test]
fn iort_source_has_direct_lpis_on_request_only() {
    let mut machine = foreign();
    machine.controllers[0].kind = ControllerKind::DirectLpi;
    let refused = iort_source(&machine, Extensions::default());
    assert_eq!(refused.unwrap_err().kind, WriteErrorKind::Controller);
    let draft = iort_source(&machine, Extensions::DRAFT_REDISTRIBUTOR_GROUP).unwrap().unwrap();
    assert!(draft.starts_with("IORT @ 0x0000000000000000\n    0000: 49 4F 52 54 "), "{draft}");
}
