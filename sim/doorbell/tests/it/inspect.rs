//! Tests for `doorbell inspect`: capacity, isolation and streams.

use crate::{marina, test_data};
use gic_firmware::{
    Controller, ControllerIndex, Description, Fact, Iommu, IommuIndex, IommuRouting, MapEntry,
    MsiRouting, PciHost, PlatformDevice, Region, Role, Status, StreamEntry, Target, devicetree,
};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Command;

fn inspect(arguments: &[&str]) -> Value {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    let output = command.args(["inspect", "--json"]).args(arguments).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs `inspect` on a devicetree, with register values from a file.
fn inspect_with(tree: &str, registers: &str, name: &str) -> Value {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("inspect-{name}.json"));
    std::fs::write(&file, registers).unwrap();
    inspect(&["--registers", file.to_str().unwrap(), &test_data(tree)])
}

#[test]
fn capacity_is_unknown_without_registers() {
    let said = inspect(&[&test_data("msi-map.dtb")]);
    let first = &said["capacity"][0];
    assert_eq!(first["controller"], "/intc@8000000/its@8080000");
    for unknown in ["interrupts", "device_id_bits", "event_id_bits"] {
        assert_eq!(first[unknown], Value::Null, "{unknown}");
    }
    // The SMMU has DeviceID 0x10000, and requester 0x29f has 0xffffffff.
    assert_eq!(
        (&first["needed_device_id_bits"], &first["needed_event_id_bits"]),
        (&32.into(), &11.into())
    );
    assert_eq!(said["capacity"].as_array().unwrap().len(), 2, "none for foreign controllers");
}

#[test]
fn register_values_determine_the_capacity() {
    // The GIC has 16 INTID bits and LPIs; the ITS has 20 DeviceID bits and 5 EventID bits.
    let registers = r#"{ "GICD_TYPER": "0x7a0000",
        "GITS_TYPER": { "/intc@8000000/its@8080000": "0x26400" } }"#;
    let said = inspect_with("msi-map.dtb", registers, "registers");
    let capacity = &said["capacity"];
    assert_eq!(capacity[0]["interrupts"], 0x1_0000 - 8192);
    assert_eq!(
        (&capacity[0]["device_id_bits"], &capacity[0]["event_id_bits"]),
        (&20.into(), &5.into())
    );
    assert_eq!(
        (&capacity[1]["interrupts"], &capacity[1]["device_id_bits"]),
        (&57344.into(), &Value::Null)
    );
    // With num_LPIs = 12, the GIC has 2^13 LPIs; without LPIS, it has none.
    let some = inspect_with("msi-map.dtb", r#"{ "GICD_TYPER": "0x7a6000" }"#, "some-lpis");
    assert_eq!(some["capacity"][0]["interrupts"], 8192);
    let none = inspect_with("msi-map.dtb", r#"{ "GICD_TYPER": "0x780000" }"#, "no-lpis");
    assert_eq!(none["capacity"][0]["interrupts"], 0);
}

#[test]
fn a_pre_its_bounds_device_ids_and_does_not_isolate() {
    let said = inspect(&[&test_data("pre-its.dtb")]);
    assert_eq!(said["controllers"][0]["isolates"], false);
    assert_eq!(said["devices"][0]["routes"][0]["isolated"], false);
    let isolation = said["devices"][0]["isolation"].as_str().unwrap();
    assert!(isolation.starts_with("not isolated"), "{isolation}");
    assert_eq!(said["capacity"][0]["device_id_bits"], said["controllers"][0]["device_id_bits"]);
}

#[test]
fn inspect_shows_the_coherence_of_the_gic_and_the_itses() {
    let said = inspect(&[&test_data("redistributors.dtb")]);
    assert_eq!(said["gic"]["coherence"], "not coherent");
    assert_eq!(said["controllers"][0]["coherence"], "not coherent");
    assert_eq!(inspect(&[&marina()])["gic"]["coherence"], "by register");
    let text = Command::new(env!("CARGO_BIN_EXE_doorbell"))
        .args(["inspect", &test_data("redistributors.dtb")])
        .output()
        .unwrap();
    let text = String::from_utf8(text.stdout).unwrap();
    let line = "not coherent with the caches: /intc@4d000000 /intc@4d000000/its@c6000000";
    assert!(text.contains(line), "{text}");
}

#[test]
fn routes_show_the_stream_ids_at_each_iommu() {
    let said = inspect(&[&marina()]);
    let route = |device: &str, route: usize| {
        let devices = said["devices"].as_array().unwrap();
        let device = devices.iter().find(|one| one["id"] == device).unwrap();
        device["routes"][route].clone()
    };
    let second = route("MCFG/0000:00-ff", 1);
    let stream = serde_json::json!([{
        "iommu": "IORT/SMMUv3@2b400000", "enabled": true,
        "rid_base": 0x100, "length": 0xff00, "stream_id_base": 0x100,
    }]);
    assert_eq!((&second["streams"], &second["isolated"]), (&stream, &true.into()));
    let ethernet = route(r"\_SB.ETH0", 0);
    assert_eq!(ethernet["streams"][0]["stream_id_base"], 0x1_0090);
    assert_eq!(route(r"\_SB.DMA0", 0)["streams"], serde_json::json!([]));
}

#[test]
fn secondary_gics_show_their_parent_interrupts() {
    let said = inspect(&[&test_data("cascaded.dtb")]);
    assert_eq!(said["gic"]["id"], "/intc@8000000");
    let second = &said["secondary_gics"][0];
    assert_eq!((&second["id"], &second["version"]), (&"/intc@2000000".into(), &2.into()));
    let parent = serde_json::json!({ "controller": "/intc@8000000", "intid": 42 });
    assert_eq!(second["parent"], parent);
    assert_eq!(said["secondary_gics"][2]["parent"]["intid"], Value::Null);
    assert_eq!(said["controllers"][0]["gic"], "/intc@2000000");
    assert_eq!(said["controllers"][1]["gic"], "/intc@8000000");
}

#[test]
fn buses_show_their_streams_with_and_without_a_route() {
    let its = Controller::its("/its@1000000", Region::new(0x100_0000, 0x2_0000).unwrap());
    let entry = MapEntry {
        rid_base: 0.into(),
        length: 0x10,
        target: Target::Controller(ControllerIndex::new(0)),
        device_id_base: 0x40.into(),
    };
    let stream = StreamEntry {
        rid_base: 0.into(),
        length: 8,
        iommu: Some(IommuIndex::new(0)),
        stream_id_base: Some(0x80),
    };
    let iommu = IommuRouting { mask: None, map: vec![Fact::stated(stream)] };
    let ecam = Region::new(0x1000_0000, 0x1000_0000).unwrap();
    let silent = PciHost::ecam("/pcie@10000000", ecam, MsiRouting::default());
    let machine = Description {
        controllers: vec![its],
        hosts: vec![PciHost { iommu: iommu.clone(), ..silent }],
        iommus: vec![Iommu {
            id: "/iommu@3000000".into(),
            compatible: vec!["arm,mmu-500".to_owned()],
            status: Fact::stated(Status::Disabled),
            registers: None,
        }],
        devices: vec![PlatformDevice {
            role: Role::Bus,
            iommu,
            ..PlatformDevice::new("/bus@2000000", "fsl,qoriq-mc", MsiRouting::map([entry]))
        }],
        ..Description::default()
    };
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("bus.dtb");
    std::fs::write(&path, devicetree::write(&machine).unwrap()).unwrap();
    let said = inspect(&[path.to_str().unwrap()]);
    let [host, bus] = [0, 1].map(|place| &said["devices"][place]);
    let route = &bus["routes"][0];
    assert_eq!(route["iommus"], serde_json::json!(["/iommu@3000000 (disabled)"]));
    let streams = serde_json::json!([{
        "iommu": "/iommu@3000000", "enabled": false,
        "rid_base": 0, "length": 8, "stream_id_base": 0x80,
    }]);
    assert_eq!((&route["streams"], &bus["streams"]), (&streams, &serde_json::json!([])));
    assert_eq!((&host["routes"], &host["streams"]), (&serde_json::json!([]), &streams));
}
