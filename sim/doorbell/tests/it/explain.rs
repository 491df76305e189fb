//! Tests for `doorbell explain`.

use crate::{Folder, Said, board, doorbell, marina, path, printed, rows};
use gic_firmware::{
    ConfigAccess, Description, Fact, Iommu, IommuIndex, IommuReference, MsiRouting, PciHost,
    Region, Status,
};
use serde_json::Value;

/// Explains a device of this description.
fn explain(test: &str, board: &Description, arguments: &[&str]) -> Said {
    let folder = Folder::new(&format!("explain-{test}"));
    folder.describe("board.dtb", board);
    folder.run(&[&["explain", "board.dtb"], arguments].concat())
}

#[track_caller]
fn ways(source: &str, device: &str) -> Vec<Value> {
    serde_json::from_str(&printed(&["explain", "--json", source, device])).unwrap()
}

/// The run is the judge: each device of a run has the DeviceID and controller of its explanation.
#[test]
fn explain_agrees_with_the_run_for_each_device() {
    for source in [&*path("../machine/machines/harbour.dtb"), &*marina()] {
        let report = doorbell(&["run", "--json", "--messages", "1", source]).json();
        let devices = rows(&report["devices"]);
        assert!(devices.len() > 10, "{source}");
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
    let mut board = board("harbour");
    board.cpus.clear();
    let said = explain("no-cpus", &board, &["01:00.0"]);
    let target = "target: an LPI, but the description enables no CPU";
    assert!(said.out.contains(target), "{}", said.out);
}

#[test]
fn explain_names_the_obstacle_and_exits_with_status_1() {
    let mut board = board("harbour");
    for controller in &mut board.controllers {
        controller.status = Fact::stated(Status::Disabled);
    }
    let window = Region::new(0x6000_0000, 0x10_0000).unwrap();
    let mut host = PciHost::ecam("/pcie@60000000", window, MsiRouting::default());
    host.compatible = vec!["snps,dw-pcie".to_owned()];
    host.config = Some(Fact::stated(ConfigAccess::Registers(window)));
    board.hosts.push(host);
    let Said { status, out, .. } = explain("off", &board, &["/crane@9000000"]);
    assert_eq!(status, Some(1), "{out}");
    assert!(out.contains("firmware disables the MSI controller") && out.contains("fix: "), "{out}");
    let Said { status, out, .. } = explain("own", &board, &["/pcie@60000000 00:01.0"]);
    assert_eq!(status, Some(0), "{out}");
    assert!(out.contains("may have one of its own") && !out.contains("fix: "), "{out}");
}

#[test]
fn explain_shows_each_iommu_on_the_route() {
    let component = &ways(&marina(), r"\_SB.ETH0")[0]["iommus"];
    assert_eq!(component[0]["stream_id"], 0x1_0090, "{component}");
    let mut board = board("harbour");
    board.iommus = ["/iommu@70000000", "/iommu@71000000"].map(iommu).to_vec();
    let device = &mut board.devices[0];
    device.iommus = (0..2u32)
        .map(|index| {
            let iommu = IommuIndex::new(index as usize);
            Fact::stated(IommuReference { iommu, specifier: vec![0x20 + index] })
        })
        .collect();
    let name = device.id.to_string();
    let passed = explain("iommus", &board, &[&name, "--json"]).json()[0]["iommus"].clone();
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
