//! Tests for `doorbell explain`.

use crate::{Folder, Said, board, doorbell, marina, path, printed, rows};
use gic_firmware::{
    ConfigAccess, Description, Fact, IntId, IntIdSpan, Iommu, IommuIndex, IommuReference,
    MsiRouting, PciHost, Region, Status,
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
fn a_description_without_cpus_has_an_obstacle() {
    let mut board = board("harbour");
    board.cpus.clear();
    let said = explain("no-cpus", &board, &["01:00.0"]).with_status(1);
    assert!(said.out.contains("target: firmware enables no CPU"), "{}", said.out);
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

/// A machine, a mistake in it, a device on whose way it is, and the rule that names it.
type Mistake = (&'static str, fn(&mut Description), &'static str, &'static str);

/// Rule about an ITS without the frame of its doorbell.
const SMALL_ITS: &str = "doorbell-outside-registers";

const MISTAKES: [Mistake; 12] = [
    ("harbour", |board| halve(&mut board.controllers[0].registers), "crane", SMALL_ITS),
    (
        "harbour",
        |board| halve(&mut board.controllers[1].registers),
        "pcie@20000000 01:00.0",
        SMALL_ITS,
    ),
    ("harbour", same_registers, "beacon", "registers-overlap"),
    ("harbour", same_registers, "crane", "registers-overlap"),
    ("harbour", same_device_id, "winch", "shared-device-id"),
    ("harbour", same_device_id, "crane", "shared-device-id"),
    ("harbour", same_host_ids, "pcie@28000000 00:01.0", "shared-device-id"),
    ("harbour", same_host_ids, "pcie@20000000 00:01.0", "shared-device-id"),
    ("harbour", few_redistributors, "00:01.0", "too-few-redistributors"),
    ("lagoon", few_redistributors, "00:01.0", "too-few-redistributors"),
    ("estuary", beyond_spis, "00:01.0", "mbi-range"),
    ("cove", beyond_spis, "00:01.0", "frame-range"),
];

fn halve(registers: &mut Option<Fact<Region>>) {
    *registers = Region::new(registers.as_ref().unwrap().base(), 0x1_0000).map(Fact::stated);
}

fn same_registers(board: &mut Description) {
    board.controllers[1].registers = board.controllers[0].registers.clone();
}

fn same_device_id(board: &mut Description) {
    board.devices[1].msi = board.devices[0].msi.clone();
}

fn same_host_ids(board: &mut Description) {
    board.hosts[1].msi = board.hosts[0].msi.clone();
}

fn few_redistributors(board: &mut Description) {
    let redistributors = &mut board.gic.as_mut().unwrap().redistributors;
    let base = redistributors[0].base();
    *redistributors = Region::new(base, 0x2_0000).map(Fact::stated).into_iter().collect();
}

fn beyond_spis(board: &mut Description) {
    let range = IntIdSpan::new(IntId::new(1000), 40).unwrap();
    board.controllers.iter_mut().for_each(|to| to.ranges = vec![range.into(); to.ranges.len()]);
}

/// Returns the rules of the findings in the explanation of a device.
fn found(test: &str, board: &Description, device: &str) -> (Option<i32>, Vec<String>) {
    let said = explain(test, board, &[device, "--json"]);
    let ways = said.json();
    let found = rows(&ways).iter().flat_map(|way| rows(&way["findings"]));
    (said.status, found.map(|row| row["rule"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn explain_prints_the_findings_on_the_way() {
    for (number, (machine, mistake, device, rule)) in MISTAKES.into_iter().enumerate() {
        let mut board = board(machine);
        let name = format!("found-{number}");
        assert_eq!(found(&name, &board, device), (Some(0), vec![]), "{machine}: {device}");
        mistake(&mut board);
        let (status, rules) = found(&name, &board, device);
        assert!(status == Some(1) && rules.contains(&rule.to_owned()), "{rule}: {rules:?}");
    }
}

#[test]
fn explain_is_silent_about_mistakes_elsewhere() {
    let mut board = board("harbour");
    halve(&mut board.controllers[0].registers);
    assert_eq!(found("elsewhere", &board, "beacon"), (Some(0), vec![]));
    same_device_id(&mut board);
    assert_eq!(found("elsewhere", &board, "beacon"), (Some(0), vec![]));
}

#[test]
fn devices_without_a_parent_are_explained() {
    let board = board("harbour");
    for node in ["/cpus", "/interrupt-controller@8000000"] {
        let said = explain("no-parent", &board, &[node]).with_status(1);
        assert!(said.out.contains("the device's node names no MSI controller"), "{}", said.out);
    }
}

#[test]
fn explain_without_a_device_lists_the_devices() {
    let harbour = path("../machine/machines/harbour.dtb");
    for arguments in [&["explain", &harbour][..], &["explain", "--machine", "harbour"]] {
        assert!(printed(arguments).contains("/crane@9000000"), "{arguments:?}");
    }
    let said = doorbell(&["explain", "nothing.dtb"]).with_status(2);
    assert!(said.err.contains("harbour: \"nothing.dtb\": no file has this name"), "{}", said.err);
    printed(&["explain", &harbour, "--json", "crane"]);
    printed(&["explain", "--machine", "harbour", "crane"]);
    doorbell(&["explain", "--machine", "harbour", &harbour, "crane"]).with_status(2);
    let said = doorbell(&["explain", &harbour, "pcie"]).with_status(2);
    assert!(said.err.contains("two nodes have this name"), "{}", said.err);
}

#[test]
fn each_code_means_one_thing_and_is_explained() {
    let list = printed(&["why"]);
    let codes: Vec<_> =
        list.lines().skip(1).filter_map(|row| row.split_whitespace().next()).collect();
    let distinct: std::collections::BTreeSet<_> = codes.iter().collect();
    assert!(distinct.len() == codes.len() && codes.len() > 250, "{list}");
    for code in codes.iter().step_by(16) {
        let said = printed(&["why", code]);
        assert!(said.contains(&format!("Code: {code}")) && said.contains("Source: "), "{said}");
    }
}
