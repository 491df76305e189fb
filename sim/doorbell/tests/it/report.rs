//! Tests for `doorbell report`. `cargo xtask test --only page` opens its pages in a browser: it
//! checks that links lead to elements, that nothing is loaded, and that names are text.

use crate::{Folder, doorbell, marina, path, refusal, rows, table, test_data};
use gic_firmware::{
    Affinity, Controller, ControllerIndex, CpuNode, Description, Gic, MsiRouting, PlatformDevice,
    Region,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// Returns the page printed by the command, and the exit status.
fn page(arguments: &[&str]) -> (String, i32) {
    let said = doorbell(&[&["report", "--messages", "20"], arguments].concat());
    (said.out, said.status.unwrap())
}

/// Returns the text between two other texts.
fn between<'p>(page: &'p str, begin: &str, end: &str) -> &'p str {
    page.split_once(begin).unwrap().1.split_once(end).unwrap().0
}

#[test]
fn lint_findings_link_to_their_boxes() {
    let (page, status) = page(&[&test_data("mistakes.dtb")]);
    assert_eq!(status, 1);
    let found = doorbell(&["lint", "--json", &test_data("mistakes.dtb")]).json();
    let found = rows(&found);
    let cards = between(&page, "<ol class=\"cards\">", "</ol>");
    for finding in found {
        assert!(cards.contains(finding["where"].as_str().unwrap()), "{finding}");
    }
    assert_eq!(cards.matches("<li>").count(), found.len());
    let place = |finding: &Value| finding["where"].as_str().unwrap().to_owned();
    let places: BTreeSet<_> = found.iter().map(place).collect();
    assert_eq!(cards.matches("<li class=").count(), places.len(), "one card for each place");
    // MBI and the GIC share a node, but each has its own properties.
    for (property, column) in [("mbi-ranges", "controller"), ("redistributor-stride", "gic")] {
        let card = cards.split_once(&format!(">/intc@8000000: {property}<")).unwrap().0;
        let node = card.rsplit_once("href=\"#").unwrap().1.trim_end_matches('"');
        let class = page.split(&format!("\" id=\"{node}\"")).next().unwrap();
        assert!(class.rsplit('"').next().unwrap().contains(column), "{property} is at {node}");
    }
}

#[test]
fn findings_in_acpi_tables_link_to_their_boxes() {
    let folder = Folder::new("report-acpi");
    for name in ["apic", "iort", "mcfg"] {
        let mut bytes = table(name);
        if name == "apic" {
            // Move the ITS with identifier 4 on top of the distributor.
            let at = its_base(&bytes);
            bytes[at..at + 8].copy_from_slice(&0x3000_0000u64.to_le_bytes());
            let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            bytes[9] = bytes[9].wrapping_sub(sum);
        }
        folder.write(&format!("{name}.aml"), bytes);
    }
    let (page, status) = page(&["--no-run", folder.0.to_str().unwrap()]);
    assert_eq!(status, 1, "{page}");
    let cards = between(&page, "<ol class=\"cards\">", "</ol>");
    let links = cards.matches("<a class=\"place\" href=\"#n").count();
    assert_eq!(links, cards.matches("<li class=").count(), "{cards}");
}

/// Returns the offset of the first ITS's base address in the MADT.
fn its_base(madt: &[u8]) -> usize {
    let mut at = 44;
    while madt[at] != 0xf {
        at += usize::from(madt[at + 1]);
    }
    at + 8
}

#[test]
fn register_values_add_capacity_and_findings() {
    let file = Folder::new("report-registers").0.join("values.json");
    // 16 DeviceID bits and 5 EventID bits; the highest DeviceID at MADT/ITS@4 needs 17.
    fs::write(&file, r#"{ "GITS_TYPER": { "MADT/ITS@4": "0x1e400" } }"#).unwrap();
    let (page, status) = page(&["--no-run", "--registers", file.to_str().unwrap(), &marina()]);
    assert_eq!(status, 1);
    let controllers = between(&page, "id=\"controllers\"", "</section>");
    for cell in ["16 (need 17)", "5 (need 11)", "unknown (need 18)"] {
        assert!(controllers.contains(cell), "{cell}: {controllers}");
    }
    assert!(between(&page, "<ol class=\"cards\">", "</ol>").contains("device-id-width"));
}

#[test]
fn a_simulated_run_renders_a_deterministic_page() {
    let wanted = ["--simulate", &path("../machine/machines/cove.dtb")];
    assert_eq!(page(&wanted), page(&wanted));
}

#[test]
fn the_report_states_why_a_machine_cannot_run() {
    let gicv2 = test_data("gicv2m.dtb");
    let (page, status) = page(&[&gicv2]);
    assert_eq!(status, 1, "it also has findings");
    assert!(between(&page, "id=\"run\"", "</section>").contains("cannot be run"));
    assert!(refusal(&["report", "--run", &gicv2]).contains("nothing to deliver"));
}

#[test]
fn each_device_has_percentiles_of_its_latencies() {
    let (measured, _) = page(&[&marina()]);
    let devices = between(&measured, "<h3 id=\"devices-title\">", "</table>");
    let rows = devices.matches("<tr role=\"row\"><th role=\"rowheader\"").count();
    assert!(rows > 5 && devices.matches(">p50 ").count() == rows, "{devices}");
    let (simulated, _) = page(&["--simulate", &marina()]);
    assert!(!simulated.contains(">p50 ") && !simulated.contains("Send to handler"));
}

#[test]
fn the_page_is_written_to_the_output_file() {
    let folder = Folder::new("report-output").0.join("report.html");
    let path = folder.to_str().unwrap();
    assert_eq!(page(&["--no-run", "-o", path, &marina()]), (String::new(), 0));
    assert!(fs::read_to_string(path).unwrap().starts_with("<!DOCTYPE html>"));
    refusal(&["report", "--no-run", "-o", "/nowhere/report.html", &marina()]);
}

#[test]
fn the_report_states_that_the_run_is_limited_to_256_devices() {
    let region = |base| Region::new(base, 0x20_0000).unwrap();
    let device = |number: u32| {
        let msi = MsiRouting::device(ControllerIndex::new(0), number.into());
        PlatformDevice::new(format!("/dma-{number}"), "vendor,dma", msi)
    };
    let machine = Description {
        cpus: vec![CpuNode::new("/cpus/cpu@0", Affinity::new(0, 0, 0, 0))],
        gic: Some(Gic::v3("/gic", region(0x800_0000), [region(0x80a_0000)])),
        controllers: vec![Controller::its("/gic/its", region(0x900_0000))],
        devices: (0..300).map(device).collect(),
        ..Description::default()
    };
    let folder = Folder::new("report-limit");
    folder.describe("many.dtb", &machine);
    let (page, _) = page(&[folder.0.join("many.dtb").to_str().unwrap()]);
    assert!(page.contains("simulated on one thread"), "{page}");
    assert!(page.contains("44 omitted"), "{page}");
    assert!(page.contains("and 36 more: the run is limited to 256 devices"), "{page}");
}
