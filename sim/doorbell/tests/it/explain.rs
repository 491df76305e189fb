//! Tests for `doorbell explain`.

use doorbell_machine::embedded;
use gic_firmware::{
    ConfigAccess, Description, Fact, Iommu, IommuIndex, IommuReference, MsiRouting, PciHost,
    Region, Status, devicetree,
};
use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

const HARBOUR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/machines/harbour.dtb");
const MARINA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/machines/marina");

fn explain(source: &str, device: &str, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.arg("explain").args(more).args([source, device]).output().unwrap()
}

fn harbour() -> Description {
    embedded::machine("harbour").unwrap().firmware.describe().unwrap()
}

/// Writes a board's devicetree, and returns its path.
fn written(name: &str, board: &Description) -> String {
    let tree = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&tree, devicetree::write(board).unwrap()).unwrap();
    tree.to_str().unwrap().to_owned()
}

#[track_caller]
fn ways(source: &str, device: &str) -> Vec<Value> {
    let output = explain(source, device, &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{device}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The run is the judge: each device of a run has the DeviceID and controller of its explanation.
#[test]
fn explain_agrees_with_the_run_for_each_device() {
    for (machine, source, option) in [("harbour", HARBOUR, "--dtb"), ("marina", MARINA, "--acpi")] {
        let mut run = Command::new(env!("CARGO_BIN_EXE_doorbell"));
        let run = run.args(["run", "--json", "--messages", "1", option, source]).output().unwrap();
        let report: Value = serde_json::from_slice(&run.stdout).unwrap();
        let devices = report["devices"].as_array().unwrap();
        assert!(devices.len() > 10, "{machine}");
        for device in devices {
            let name = device["id"].as_str().unwrap();
            let way = &ways(source, name)[0];
            assert_eq!(way["controller"], device["controller"], "{name}");
            // Functions behind a conventional bridge use the bridge's alias.
            if device["requester_id"].is_null() || way["requester"] == device["requester_id"] {
                assert_eq!(way["device_id"], device["device_id"], "{name}");
            }
            let id = way["device_id"].to_string();
            let owners = ways(source, &id);
            // Under a mask, several functions of a host share the DeviceID; one is named.
            let node = name.split([' ', '[']).next().unwrap();
            let is_here = |one: &Value| {
                let device = one["device"].as_str().unwrap();
                device.starts_with(node) && one["controller"] == way["controller"]
            };
            assert!(owners.iter().any(is_here), "{id} belongs to {name}, not to {owners:?}");
        }
    }
}

#[test]
fn explain_finds_no_target_in_a_description_without_cpus() {
    let mut board = harbour();
    board.cpus.clear();
    let output = explain(&written("explain-no-cpus.dtb", &board), "01:00.0", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("target: an LPI, but the description enables no CPU"), "{text}");
}

#[test]
fn explain_names_the_obstacle_and_exits_with_status_1() {
    let mut board = harbour();
    for controller in &mut board.controllers {
        controller.status = Fact::stated(Status::Disabled);
    }
    let window = Region::new(0x6000_0000, 0x10_0000).unwrap();
    let mut host = PciHost::ecam("/pcie@60000000", window, MsiRouting::default());
    host.compatible = vec!["snps,dw-pcie".to_owned()];
    host.config = Some(Fact::stated(ConfigAccess::Registers(window)));
    board.hosts.push(host);
    let tree = written("explain-off.dtb", &board);
    let output = explain(&tree, "/crane@9000000", &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("firmware disables the MSI controller") && text.contains("fix: "),
        "{text}"
    );
    let own = explain(&tree, "/pcie@60000000 00:01.0", &[]);
    let text = String::from_utf8(own.stdout).unwrap();
    assert_eq!(own.status.code(), Some(0), "{text}");
    assert!(text.contains("may have one of its own") && !text.contains("fix: "), "{text}");
}

#[test]
fn unknown_device_names_are_refused_with_advice() {
    for (device, words) in [
        ("/pcie@20000000", "name a function, such as \"/pcie@20000000 00:01.0\""),
        ("/crane@900000", "did you mean \"/crane@9000000\"?"),
        ("ff:1f.7", "no PCI host has this function"),
        ("01:20.0", "is expected"),
        ("0xfffffff", "no requester has this DeviceID"),
        ("", "is expected"),
    ] {
        let output = explain(HARBOUR, device, &[]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{device}");
        assert!(said.contains(words), "{device}: {said}");
    }
}

#[test]
fn explain_shows_each_iommu_on_the_route() {
    let component = &ways(MARINA, r"\_SB.ETH0")[0]["iommus"];
    assert_eq!(component[0]["stream_id"], 0x1_0090, "{component}");
    let mut board = harbour();
    board.iommus = ["/iommu@70000000", "/iommu@71000000"].map(iommu).to_vec();
    let device = &mut board.devices[0];
    device.iommus = (0..2u32)
        .map(|index| {
            let iommu = IommuIndex::new(index as usize);
            Fact::stated(IommuReference { iommu, specifier: vec![0x20 + index] })
        })
        .collect();
    let name = device.id.to_string();
    let passed = &ways(&written("explain-iommus.dtb", &board), &name)[0]["iommus"];
    let streams = [&passed[0]["stream_id"], &passed[1]["stream_id"]];
    assert_eq!(streams, [0x20, 0x21], "{passed}");
}

fn iommu(node: &str) -> Iommu {
    Iommu {
        id: node.into(),
        compatible: vec!["arm,smmu-v3".to_owned()],
        status: Fact::stated(Status::Enabled),
        registers: None,
    }
}
