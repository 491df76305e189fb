//! Tests for `doorbell lint`: exit statuses, output formats, and how sources and rules are
//! selected.

use crate::{Folder, Said, doorbell, marina, rows, table, test_data};
use gic_firmware::{Rule, acpi, devicetree};
use serde_json::Value;
use std::fs;

fn lint(arguments: &[&str]) -> Said {
    doorbell(&[&["lint"], arguments].concat())
}

fn rules(findings: &Value) -> Vec<&str> {
    rows(findings).iter().map(|row| row["rule"].as_str().unwrap()).collect()
}

#[test]
fn lint_with_only_notes_exits_with_status_0() {
    let others: Vec<_> = Rule::ALL.iter().filter(|rule| **rule != Rule::SeveralGics).collect();
    let mut arguments = vec![test_data("mistakes.dtb")];
    arguments.extend(others.iter().flat_map(|rule| ["--allow".into(), rule.to_string()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let said = lint(&[&["--json"], &arguments[..]].concat());
    let findings = said.json();
    assert_eq!((said.status, rules(&findings)), (Some(0), vec!["several-gics"]));
    assert_eq!(findings[0]["severity"], "note");
}

#[test]
fn each_rule_is_explained() {
    for rule in Rule::ALL {
        let text = lint(&["--explain", rule.name()]).out;
        assert!(text.contains("\nFault:\n") && text.contains("\nFix:\n"), "{rule}: {text}");
        assert!(!text.contains("```"), "{rule}");
    }
}

#[test]
fn sarif_has_each_rule_and_each_finding() {
    let tree = test_data("mistakes.dtb");
    let said = lint(&[&tree, "--sarif"]);
    let log = said.json();
    assert_eq!((said.status, &log["version"]), (Some(1), &Value::from("2.1.0")));
    let run = &log["runs"][0];
    let rules = rows(&run["tool"]["driver"]["rules"]);
    assert_eq!(rules.len(), Rule::ALL.len() + 1, "those of descriptions, and unreadable-source");
    let results = rows(&run["results"]);
    assert_eq!(results.len(), rows(&lint(&[&tree, "--json"]).json()).len());
    let place = &results[0]["locations"][0];
    assert_eq!(place["physicalLocation"]["artifactLocation"]["uri"], tree.as_str());
    assert_eq!(place["logicalLocations"][0]["fullyQualifiedName"], "/device-d: phandle");
}

#[test]
fn the_files_of_a_folder_are_checked_in_name_order() {
    let folder = Folder::new("lint-folder");
    for name in ["b.dtb", "a.dtb", "below/c.dtb"] {
        folder.write(name, fs::read(test_data("mistakes.dtb")).unwrap());
    }
    folder.write("notes.txt", "no devicetree");
    let said = folder.lint(&[".", "--json"]);
    let findings = said.json();
    let mut sources: Vec<_> =
        rows(&findings).iter().map(|row| row["source"].as_str().unwrap()).collect();
    sources.dedup();
    assert_eq!((said.status, sources), (Some(1), vec!["./a.dtb", "./b.dtb", "./below/c.dtb"]));
}

#[test]
fn an_unreadable_devicetree_does_not_hide_other_findings() {
    let folder = Folder::new("lint-unreadable");
    folder.write("a.dtb", "no devicetree");
    folder.write("b.dtb", fs::read(test_data("mistakes.dtb")).unwrap());
    let said = folder.lint(&[".", "--summary"]);
    assert_eq!(said.status, Some(2));
    assert!(said.err.contains("a.dtb is not a flattened"), "{}", said.err);
    assert!(said.out.contains("msi-map-overlap"), "{}", said.out);
}

#[test]
fn acpi_and_devicetree_of_the_same_machine_are_compared() {
    let tables = ["apic", "iort", "mcfg"].map(table);
    let tables = acpi::TableSet::from_blobs(tables.iter().map(Vec::as_slice)).unwrap();
    let mut machine = devicetree::with_node_paths(&acpi::parse(&tables));
    let folder = Folder::new("lint-same-machine");
    folder.describe("same.dtb", &machine);
    machine.cpus.pop();
    folder.describe("other.dtb", &machine);
    let same = |name| folder.lint(&["--json", &marina(), name, "--same-machine"]);
    assert_eq!(same("same.dtb").status, Some(0));
    let said = same("other.dtb");
    let findings = said.json();
    assert_eq!((said.status, rules(&findings)), (Some(1), vec!["contradicting-cpus"]));
    assert_eq!(findings[0]["source"], "other.dtb");
    assert_eq!(folder.lint(&["other.dtb", "--same-machine"]).status, Some(2));
}

#[test]
fn a_finding_in_an_acpi_table_shows_the_field() {
    let folder = Folder::new("lint-bytes");
    for name in ["apic", "iort", "mcfg"] {
        let mut table = table(name);
        table[9] = table[9].wrapping_add(1);
        folder.write(&format!("{name}.aml"), table);
    }
    let text = folder.lint(&["."]).out;
    assert!(text.contains("warning[table-checksum]"), "{text}");
    assert!(
        text.contains("MADT+0x9: checksum\n"),
        "no line of a text that only the tool has: {text}"
    );
    assert!(text.contains("checksum: 0x"), "{text}");
    assert!(text.contains("MADT, header\n"), "{text}");
}
