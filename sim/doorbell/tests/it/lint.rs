//! Tests for `doorbell lint`: exit statuses, output formats, and how sources and rules are
//! selected.

use crate::{marina, test_data};
use gic_firmware::{Rule, acpi, devicetree};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn lint(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_doorbell")).arg("lint").args(arguments).output().unwrap()
}

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = lint(&[arguments, &["--json"]].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn rules(findings: &Value) -> Vec<&str> {
    let rows = findings.as_array().unwrap();
    rows.iter().map(|row| row["rule"].as_str().unwrap()).collect()
}

/// Creates an empty folder for a test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn lint_prints_the_main_fields_of_a_finding_and_exits_with_status_1() {
    let (status, findings) = json(&[&test_data("mistakes.dtb")]);
    assert_eq!(status, Some(1));
    for field in ["source", "rule", "severity", "where", "message", "help"] {
        assert!(findings[0][field].is_string(), "{field}");
    }
    assert!(rules(&findings).contains(&"msi-map-overlap"));
}

#[test]
fn lint_without_findings_exits_with_status_0() {
    let (status, findings) = json(&[&test_data("single-its.dtb")]);
    assert_eq!((status, findings.as_array().unwrap().len()), (Some(0), 0));
}

#[test]
fn allowed_rules_are_silent_and_denied_rules_are_errors() {
    let tree = test_data("mistakes.dtb");
    let (status, findings) = json(&[&tree, "--allow", "all", "--deny", "several-gics"]);
    assert_eq!((status, rules(&findings)), (Some(1), vec!["several-gics"]));
    assert_eq!(findings[0]["severity"], "error");
    let (status, findings) = json(&[&tree, "--allow", "all"]);
    assert_eq!((status, rules(&findings).len()), (Some(0), 0));
}

#[test]
fn lint_with_only_notes_exits_with_status_0() {
    let others: Vec<_> = Rule::ALL.iter().filter(|rule| **rule != Rule::SeveralGics).collect();
    let mut arguments = vec![test_data("mistakes.dtb")];
    arguments.extend(others.iter().flat_map(|rule| ["--allow".into(), rule.to_string()]));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (status, findings) = json(&arguments);
    assert_eq!((status, rules(&findings)), (Some(0), vec!["several-gics"]));
    assert_eq!(findings[0]["severity"], "note");
}

#[test]
fn an_unknown_rule_is_named_in_the_error() {
    let output = lint(&["--allow", "no-such-rule", &test_data("mistakes.dtb")]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no rule is named \"no-such-rule\""));
}

#[test]
fn each_rule_is_explained() {
    for rule in Rule::ALL {
        let output = lint(&["--explain", rule.name()]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("\nFault:\n") && text.contains("\nFix:\n"), "{rule}: {text}");
        assert!(!text.contains("```"), "{rule}");
    }
}

#[test]
fn sarif_has_each_rule_and_each_finding() {
    let tree = test_data("mistakes.dtb");
    let output = lint(&[&tree, "--sarif"]);
    let log: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &log["version"]), (Some(1), &Value::from("2.1.0")));
    let run = &log["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    assert_eq!(rules.len(), Rule::ALL.len() + 1, "those of descriptions, and unreadable-source");
    let results = run["results"].as_array().unwrap();
    assert_eq!(results.len(), json(&[&tree]).1.as_array().unwrap().len());
    let place = &results[0]["locations"][0];
    assert_eq!(place["physicalLocation"]["artifactLocation"]["uri"], tree.as_str());
    assert_eq!(place["logicalLocations"][0]["fullyQualifiedName"], "/device-d: phandle");
}

#[test]
fn the_files_of_a_folder_are_checked_in_name_order() {
    let folder = folder("lint-folder");
    fs::create_dir(folder.join("below")).unwrap();
    for name in ["b.dtb", "a.dtb", "below/c.dtb"] {
        write(&folder, name, &fs::read(test_data("mistakes.dtb")).unwrap());
    }
    write(&folder, "notes.txt", b"no devicetree");
    let (status, findings) = json(&[folder.to_str().unwrap()]);
    let rows = findings.as_array().unwrap();
    let mut sources: Vec<_> = rows.iter().map(|row| row["source"].as_str().unwrap()).collect();
    sources.dedup();
    let names: Vec<_> = sources.iter().map(|source| &source[folder.as_os_str().len()..]).collect();
    assert_eq!((status, names), (Some(1), vec!["/a.dtb", "/b.dtb", "/below/c.dtb"]));
}

#[test]
fn an_unreadable_devicetree_does_not_hide_other_findings() {
    let folder = folder("lint-unreadable");
    write(&folder, "a.dtb", b"no devicetree");
    write(&folder, "b.dtb", &fs::read(test_data("mistakes.dtb")).unwrap());
    let output = lint(&[folder.to_str().unwrap(), "--summary"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a.dtb is not a flattened"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("msi-map-overlap"));
}

#[test]
fn acpi_and_devicetree_of_the_same_machine_are_compared() {
    let tables: Vec<_> = ["apic", "iort", "mcfg"]
        .iter()
        .map(|name| fs::read(Path::new(&marina()).join(format!("{name}.aml"))).unwrap())
        .collect();
    let tables = acpi::TableSet::from_blobs(tables.iter().map(Vec::as_slice)).unwrap();
    let mut machine = devicetree::with_node_paths(&acpi::parse(&tables));
    let folder = folder("lint-same-machine");
    let same = write(&folder, "same.dtb", &devicetree::write(&machine).unwrap());
    machine.cpus.pop();
    let other = write(&folder, "other.dtb", &devicetree::write(&machine).unwrap());
    assert_eq!(json(&[&marina(), &same, "--same-machine"]).0, Some(0));
    let (status, findings) = json(&[&marina(), &other, "--same-machine"]);
    assert_eq!((status, rules(&findings)), (Some(1), vec!["contradicting-cpus"]));
    assert_eq!(findings[0]["source"], other.as_str());
    let alone = lint(&[&other, "--same-machine"]);
    assert_eq!(alone.status.code(), Some(2));
}

#[test]
fn register_values_reveal_an_its_without_lpis() {
    let folder = folder("lint-registers");
    let tree = test_data("single-its.dtb");
    let values = write(&folder, "values.json", br#"{ "GICR_TYPER": ["0x0", 1] }"#);
    let (status, findings) = json(&[&tree, "--registers", &values]);
    assert_eq!((status, rules(&findings)), (Some(1), vec!["its-without-lpis"]));
    for wrong in ["{ \"GICR_TYPO\": [] }", "{ \"GICD_TYPER\": \"0xfffffffff\" }", "[]"] {
        let values = write(&folder, "wrong.json", wrong.as_bytes());
        let output = lint(&[&tree, "--registers", &values]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("has no register values"));
    }
}

#[test]
fn a_finding_in_an_acpi_table_shows_the_field() {
    let folder = folder("lint-bytes");
    for name in ["apic", "iort", "mcfg"] {
        let mut table = fs::read(Path::new(&marina()).join(format!("{name}.aml"))).unwrap();
        table[9] = table[9].wrapping_add(1);
        write(&folder, &format!("{name}.aml"), &table);
    }
    let output = lint(&[folder.to_str().unwrap()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("warning[table-checksum]"), "{text}");
    assert!(
        text.contains("MADT+0x9: checksum\n"),
        "no line of a text that only the tool has: {text}"
    );
    assert!(text.contains("checksum: 0x"), "{text}");
    assert!(text.contains("MADT, header\n"), "{text}");
}
