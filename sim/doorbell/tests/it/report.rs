//! Tests for `doorbell report`. The page is a single file that loads nothing; its links have
//! targets; and it shows firmware's text unchanged, whatever it contains. `cargo xtask test --only
//! report` opens it in a browser.

use crate::{doorbell, marina};
use gic_firmware::{
    Controller, ControllerIndex, CpuNode, Description, Fact, Gic, MsiRouting, PlatformDevice,
    Region, Status, devicetree,
};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Returns the page printed by the command, and the exit status.
fn page(arguments: &[&str]) -> (String, i32) {
    let output = doorbell(&[&["report", "--messages", "20"], arguments].concat());
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

fn path(below_crates: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(below_crates);
    path.to_str().unwrap().to_owned()
}

fn mistakes() -> String {
    path("../crates/gic-firmware/tests/data/mistakes.dtb")
}

/// Returns an attribute's values.
fn values<'p>(page: &'p str, attribute: &str) -> Vec<&'p str> {
    let begin = format!(" {attribute}=\"");
    page.split(&begin).skip(1).map(|rest| rest.split('"').next().unwrap()).collect()
}

/// Returns the text between two other texts.
fn between<'p>(page: &'p str, begin: &str, end: &str) -> &'p str {
    page.split_once(begin).unwrap().1.split_once(end).unwrap().0
}

#[test]
fn every_link_points_to_an_element_of_the_page() {
    let (page, _) = page(&[&mistakes()]);
    let ids = values(&page, "id");
    let unique: BTreeSet<_> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "an identifier occurs twice");
    for link in values(&page, "href") {
        assert!(unique.contains(&link.strip_prefix('#').unwrap()), "{link} leads nowhere");
    }
}

#[test]
fn lint_findings_link_to_their_boxes() {
    let (page, status) = page(&[&mistakes()]);
    assert_eq!(status, 1);
    let found = doorbell(&["lint", "--json", &mistakes()]);
    let found: Value = serde_json::from_slice(&found.stdout).unwrap();
    let cards = between(&page, "<ol class=\"cards\">", "</ol>");
    for finding in found.as_array().unwrap() {
        assert!(cards.contains(finding["where"].as_str().unwrap()), "{finding}");
    }
    assert_eq!(cards.matches("<li>").count(), found.as_array().unwrap().len());
    let place = |finding: &Value| finding["where"].as_str().unwrap().to_owned();
    let places: BTreeSet<_> = found.as_array().unwrap().iter().map(place).collect();
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
fn text_in_backticks_is_shown_as_code() {
    let (page, _) = page(&[&mistakes()]);
    assert!(!page.contains('`'), "{}", between(&page, "<ol class=\"cards\">", "</ol>"));
    assert!(page.contains("Help: <code>mbi-ranges</code> holds INTIDs: SPI numbers plus 32."));
    assert!(page.contains("Give the ITS <code>#msi-cells = &#60;1&#62;</code> and"));
    assert!(page.contains("<b class=\"unclean\">"), "the number of findings stands out");
}

#[test]
fn findings_in_acpi_tables_link_to_their_boxes() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-acpi");
    fs::create_dir_all(&folder).unwrap();
    for table in ["apic", "iort", "mcfg"] {
        let name = format!("{table}.aml");
        let mut bytes = fs::read(PathBuf::from(marina()).join(&name)).unwrap();
        if table == "apic" {
            // Move the ITS with identifier 4 on top of the distributor.
            let at = its_base(&bytes);
            bytes[at..at + 8].copy_from_slice(&0x3000_0000u64.to_le_bytes());
            let sum = bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
            bytes[9] = bytes[9].wrapping_sub(sum);
        }
        fs::write(folder.join(name), bytes).unwrap();
    }
    let (page, status) = page(&["--no-run", folder.to_str().unwrap()]);
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
fn every_cpu_is_listed() {
    let (page, _) = page(&["--no-run", &marina()]);
    let cpus = between(&page, "<ul class=\"cpu-list\">", "</ul>");
    assert_eq!(cpus.matches("<li>").count(), 6);
    assert!(cpus.contains(">MADT/GICC@16</a> <span>0.0.0.0</span>"), "{cpus}");
}

#[test]
fn routes_quote_their_firmware_property() {
    let (page, _) = page(&["--no-run", &mistakes()]);
    let routes = between(&page, "id=\"routes\"", "</section>");
    assert!(routes.contains("<span class=\"place\">/pcie@10000000: msi-map</span>"));
    assert!(routes.contains("<code class=\"quote\">msi-map = &#60;0x"), "{routes}");
    assert!(routes.contains("the controller is disabled"));
}

#[test]
fn the_heat_map_has_a_row_for_each_vector_of_a_run() {
    let (page, status) = page(&[&marina()]);
    assert_eq!(status, 0);
    assert!(page.contains("Verdict: clean"));
    let report = doorbell(&["--json", "--messages", "20", "--acpi", &marina()]);
    let report: Value = serde_json::from_slice(&report.stdout).unwrap();
    let heat = between(&page, "<table class=\"heat\">", "</table>");
    let rows: Vec<_> = heat.split("<tr>").skip(2).collect();
    assert_eq!(rows.len() as u64, report["totals"]["vectors"].as_u64().unwrap());
    for row in rows {
        let counts = row.split("<td class=\"h").skip(1);
        let counts = counts.map(|cell| between(cell, "\">", "<").parse::<u64>().unwrap());
        let runs: u64 = counts.sum();
        assert!((1..=20).contains(&runs), "{row}");
    }
}

#[test]
fn register_values_add_capacity_and_findings() {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report-registers.json");
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
    let wanted = ["--simulate", &path("machine/machines/cove.dtb")];
    assert_eq!(page(&wanted), page(&wanted));
}

#[test]
fn the_report_states_why_a_machine_cannot_run() {
    let gicv2 = path("../crates/gic-firmware/tests/data/gicv2m.dtb");
    let (page, status) = page(&[&gicv2]);
    assert_eq!(status, 1, "it also has findings");
    assert!(between(&page, "id=\"run\"", "</section>").contains("cannot be run"));
    let output = doorbell(&["report", "--run", &gicv2]);
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true));
    assert!(String::from_utf8(output.stderr).unwrap().contains("nothing to deliver"));
}

#[test]
fn the_page_loads_no_resource_and_has_no_inline_style() {
    let (page, _) = page(&[&marina()]);
    for part in [" src=", "url(", "@import", "<link", "<iframe", " style=", "<img", "<object"] {
        assert!(!page.contains(part), "{part}");
    }
    assert!(!page.replace("http://www.w3.org/2000/svg", "").contains("://"));
    let policy = values(&page, "content");
    assert!(policy[0].starts_with("default-src &#39;none&#39;; style-src &#39;sha256-"));
    assert!(!policy[0].contains("unsafe"));
}

#[test]
fn names_on_the_page_are_escaped() {
    let region = |base| Region::new(base, 0x2_0000).unwrap();
    let hostile = "/a<script>alert(1)<&\"'>";
    let mut its = Controller::its("/gic/<i onload=x>", region(0x808_0000));
    its.status = Fact::stated(Status::Disabled);
    let machine = Description {
        model: Some(Fact::stated("</title><script>alert(2)</script>".to_owned())),
        cpus: vec![CpuNode::new("/cpus/cpu@0", gic_firmware::Affinity::new(0, 0, 0, 0))],
        gic: Some(Gic::v3("/gic", region(0x800_0000), [region(0x80a_0000)])),
        controllers: vec![its],
        devices: vec![PlatformDevice::new(
            hostile,
            "--><svg onload=alert(3)>",
            MsiRouting::device(ControllerIndex::new(0), 7.into()),
        )],
        ..Description::default()
    };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("'><b>report.dtb");
    fs::write(&path, devicetree::write(&machine).unwrap()).unwrap();
    let (page, _) = page(&[path.to_str().unwrap()]);
    assert_eq!(page.matches("<script>").count(), 1);
    for part in ["<i ", "<svg onload", "'><b>", "\"'>", "</title><"] {
        assert!(!page.contains(part), "{part}");
    }
    for name in ["alert(1)", "alert(2)", "alert(3)", "&#60;b&#62;report.dtb", "&#60;i onload=x"] {
        assert!(page.contains(name), "{name} is not shown");
    }
}

#[test]
fn each_device_has_a_plot_of_its_latencies() {
    let (measured, _) = page(&[&marina()]);
    let devices = between(&measured, "<h3 id=\"devices-title\">", "</table>");
    let rows = devices.matches("<tr role=\"row\"><th role=\"rowheader\"").count();
    assert!(rows > 5 && devices.matches("<svg class=\"latency\"").count() == rows, "{devices}");
    assert_eq!(devices.matches("</svg> p50 ").count(), rows);
    let (simulated, _) = page(&["--simulate", &marina()]);
    assert!(
        !simulated.contains("<svg class=\"latency\"") && !simulated.contains("Send to handler")
    );
}

#[test]
fn the_page_is_written_to_the_output_file() {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report.html");
    let path = path.to_str().unwrap();
    assert_eq!(page(&["--no-run", "-o", path, &marina()]), (String::new(), 0));
    assert!(fs::read_to_string(path).unwrap().starts_with("<!DOCTYPE html>"));
    let output = doorbell(&["report", "--no-run", "-o", "/nowhere/report.html", &marina()]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_report_states_that_the_run_is_limited_to_256_devices() {
    let region = |base| Region::new(base, 0x20_0000).unwrap();
    let device = |number: u32| {
        let msi = MsiRouting::device(ControllerIndex::new(0), number.into());
        PlatformDevice::new(format!("/dma-{number}"), "vendor,dma", msi)
    };
    let machine = Description {
        cpus: vec![CpuNode::new("/cpus/cpu@0", gic_firmware::Affinity::new(0, 0, 0, 0))],
        gic: Some(Gic::v3("/gic", region(0x800_0000), [region(0x80a_0000)])),
        controllers: vec![Controller::its("/gic/its", region(0x900_0000))],
        devices: (0..300).map(device).collect(),
        ..Description::default()
    };
    let tree = Path::new(env!("CARGO_TARGET_TMPDIR")).join("many-devices.dtb");
    fs::write(&tree, devicetree::write(&machine).unwrap()).unwrap();
    let (page, _) = page(&[tree.to_str().unwrap()]);
    assert!(page.contains("simulated on one thread"), "{page}");
    assert!(page.contains("44 omitted"), "{page}");
    assert!(page.contains("and 36 more: the run is limited to 256 devices"), "{page}");
}
