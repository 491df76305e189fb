//! Tests for `doorbell diff`.

use crate::{Folder, Said, board, marina, table};
use gic_firmware::{
    Controller, ControllerKind, Description, DeviceId, Fact, IntId, IntIdSpan, IommuRouting,
    NodeId, Region, Status, acpi, devicetree,
};
use msi_types::pci::{PciSpace, PciWindow};
use serde_json::Value;

/// Writes both descriptions and compares them.
fn diff(test: &str, old: &Description, new: &Description, more: &[&str]) -> Said {
    let folder = folder(test);
    folder.describe("old.dtb", old);
    folder.describe("new.dtb", new);
    folder.run(&[&["diff", "old.dtb", "new.dtb"], more].concat())
}

fn folder(test: &str) -> Folder {
    Folder::new(&format!("diff-{test}"))
}

#[track_caller]
fn text(said: Said, status: i32) -> String {
    said.with_status(status).out
}

/// Undoes the wrapping of lines.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Returns `estuary` with these message-based SPIs.
fn with_ranges(ranges: &[(u32, u32)]) -> Description {
    let mut board = board("estuary");
    let mbi = board.controllers.iter_mut().find(|one| one.kind == ControllerKind::Mbi).unwrap();
    let span = |(first, count): &(u32, u32)| IntIdSpan::new(IntId::new(*first), *count).unwrap();
    mbi.ranges = ranges.iter().map(|range| Fact::stated(span(range))).collect();
    board
}

#[test]
fn a_description_does_not_differ_from_itself() {
    for machine in ["harbour", "estuary", "lagoon", "cove"] {
        let board = board(machine);
        let output = diff(&format!("same-{machine}"), &board, &board, &[]);
        assert_eq!(text(output, 0), "no differences\n");
    }
    let said = folder("same-tables").run(&["diff", &marina(), &marina()]);
    assert_eq!(text(said, 0), "no differences\n");
}

#[test]
fn a_removed_dma_window_is_shown_with_its_finding() {
    let mut old = board("harbour");
    let window = |base, size| {
        let region = Region::new(base, size).unwrap();
        Fact::stated(PciWindow::identity(PciSpace::Memory64, region))
    };
    let host = &mut old.hosts[0];
    host.iommu = IommuRouting::default();
    host.dma_windows = vec![window(0x4000_0000, 0x4000_0000), window(0, 0x4000_0000)];
    let mut new = old.clone();
    new.hosts[0].dma_windows.pop();
    let text = words(&text(diff("dma", &old, &new, &[]), 1));
    assert!(text.contains("dma-ranges 0x40000000+0x40000000, 0x0+0x40000000 → 0x4"), "{text}");
    assert!(text.contains("doorbell-outside-dma-ranges"), "{text}");
}

#[test]
fn a_changed_range_is_shown_with_its_node() {
    let (old, new) = (with_ranges(&[(64, 32)]), with_ranges(&[(96, 32)]));
    let mbi = old.controllers.iter().find(|one| one.kind == ControllerKind::Mbi).unwrap();
    let node = format!("{} (mbi)", mbi.id);
    let text = text(diff("range", &old, &new, &[]), 1);
    assert!(text.contains(&format!("  {node}: mbi-ranges 64+32 → 96+32\n")), "{text}");
    let said = diff("range-json", &old, &new, &["--json"]);
    assert_eq!(said.status, Some(1));
    let json = said.json();
    assert_eq!((&json["old"], &json["omitted"]), (&Value::from("old.dtb"), &Value::from(0)));
    let row = &json["differences"][0];
    for (field, value) in [
        ("section", "controllers"),
        ("object", node.as_str()),
        ("field", "mbi-ranges"),
        ("before", "64+32"),
        ("after", "96+32"),
    ] {
        assert_eq!(row[field], value, "{row}");
    }
}

#[test]
fn a_changed_list_shows_only_the_changed_entry() {
    let ranges: Vec<_> = (0..40).map(|index| (64 + index * 8, 4)).collect();
    let mut longer = ranges.clone();
    longer[20].1 = 5;
    let text = text(diff("long", &with_ranges(&ranges), &with_ranges(&longer), &[]), 1);
    assert!(text.contains("mbi-ranges 224+4 → 224+5\n"), "{text}");
}

#[test]
fn a_moved_its_keeps_its_routes() {
    let old = board("harbour");
    let mut new = old.clone();
    let its = new.controllers.iter_mut().find(|one| one.kind == ControllerKind::Its).unwrap();
    let (was, parent) = (its.id.clone(), its.id.as_str().rsplit_once('/').unwrap().0.to_owned());
    its.id = NodeId::from(format!("{parent}/msi-controller@700000000"));
    its.registers = Some(Fact::stated(Region::new(0x7_0000_0000, 0x2_0000).unwrap()));
    let text = text(diff("moved", &old, &new, &[]), 1);
    let start =
        format!("MSI controllers: {was} (its): now {parent}/msi-controller@700000000 (its)");
    assert!(words(&text).starts_with(&start), "{text}");
    assert!(text.contains("registers 0x"), "{text}");
    assert!(!text.contains("routes:") && !text.contains("isolation:"), "{text}");
}

#[test]
fn changed_routes_are_shown_by_requesters() {
    let old = board("harbour");
    let mut new = old.clone();
    let host = new.hosts.iter_mut().find(|host| host.msi.map.is_some()).unwrap();
    let name = host.id.to_string();
    let entry = &mut host.msi.map.as_mut().unwrap()[0].value;
    let (length, base) = (entry.length, entry.device_id_base.get());
    entry.length = length - 1;
    let text_of = |new: &Description, test| text(diff(test, &old, new, &[]), 1);
    let shorter = text_of(&new, "shorter");
    let last =
        format!("{name}: requester {:#06x} DeviceID {:#x} at ", length - 1, base + length - 1);
    let shorter = words(&shorter);
    assert!(shorter.contains(&last) && shorter.contains(" → none 1 difference"), "{shorter}");
    let host = new.hosts.iter_mut().find(|host| host.msi.map.is_some()).unwrap();
    let entry = &mut host.msi.map.as_mut().unwrap()[0].value;
    (entry.length, entry.device_id_base) = (length, DeviceId::new(base + 0x40_0000));
    let moved = text_of(&new, "shifted");
    let words = words(&moved);
    let all = format!("{name}: requesters 0x0000 to {:#06x} DeviceIDs {base:#x} to ", length - 1);
    assert!(words.contains(&all), "{moved}");
}

#[test]
fn removing_an_smmu_is_shown_as_an_isolation_change() {
    let old = devicetree::with_node_paths(&board("marina"));
    let mut new = old.clone();
    let host = new.hosts.iter_mut().find(|host| !host.iommu.map.is_empty()).unwrap();
    let name = host.id.to_string();
    host.iommu.map.clear();
    let text = text(diff("isolation", &old, &new, &[]), 1);
    let (_, isolation) = text.split_once("isolation:\n").unwrap();
    let isolation = words(isolation);
    assert!(isolation.starts_with(&format!("{name}: requester")), "{text}");
    assert!(isolation.contains("StreamID") && isolation.contains("→ none"), "{text}");
}

#[test]
fn diff_distinguishes_new_from_gone_findings() {
    let sound = board("harbour");
    let mut faulty = sound.clone();
    let id = format!("{}/its@700000000", faulty.gic.as_ref().unwrap().id);
    let registers = Region::new(0x7_0000_0000, 0x2_0000).unwrap();
    let mut its = Controller::its(id.as_str(), registers);
    its.msi_cells = Fact::stated(2);
    faulty.controllers.push(its);
    let worse = text(diff("worse", &sound, &faulty, &[]), 1);
    assert!(worse.contains("findings:\n  new its-msi-cells: /"), "{worse}");
    let better = text(diff("better", &faulty, &sound, &[]), 1);
    assert!(better.contains("findings:\n  gone its-msi-cells: /"), "{better}");
}

#[test]
fn disabled_added_and_removed_objects_are_named() {
    let old = board("harbour");
    let mut new = old.clone();
    new.hosts[0].status = Fact::stated(Status::Disabled);
    let cpu = new.cpus.pop().unwrap();
    let text = text(diff("removed", &old, &new, &[]), 1);
    let line = format!("  CPU {}: removed (status enabled)\n", cpu.affinity.value);
    assert!(text.contains(&line), "{text}");
    let line = format!("  {}: status enabled → disabled\n", new.hosts[0].id);
    assert!(text.contains(&line), "{text}");
}

#[test]
fn acpi_tables_and_an_equivalent_devicetree_have_no_differences() {
    let blobs = ["apic", "iort", "mcfg"].map(table);
    let set = acpi::TableSet::from_blobs(blobs.iter().map(Vec::as_slice)).unwrap();
    let mut machine = devicetree::with_node_paths(&acpi::parse(&set));
    let folder = folder("forms");
    let compared = |machine: &Description| {
        folder.describe("new.dtb", machine);
        folder.run(&["diff", &marina(), "new.dtb"])
    };
    assert_eq!(text(compared(&machine), 0), "no differences\n");
    machine.cpus.pop();
    assert!(text(compared(&machine), 1).starts_with("CPUs:\n  CPU "));
}

#[test]
fn diff_of_unreadable_descriptions_exits_with_status_2() {
    let folder = folder("unreadable");
    folder.write("bad.dtb", "no devicetree");
    folder.describe("a.dtb", &board("harbour"));
    let run = |arguments: [&str; 2]| folder.run_on("a.dtb", &[&["diff"], &arguments[..]].concat());
    for arguments in [["a.dtb", "bad.dtb"], ["missing.dtb", "a.dtb"], ["-", "-"]] {
        let said = run(arguments);
        assert_eq!((said.status, said.out.as_str()), (Some(2), ""), "{arguments:?}");
    }
    assert_eq!(text(run(["-", "a.dtb"]), 0), "no differences\n");
}
