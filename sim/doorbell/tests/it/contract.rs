//! The command's contract with other programs: JSON fields and exit statuses.

use crate::{doorbell, marina, temporary, test_data};
use serde_json::Value;
use std::path::PathBuf;
use std::process::Output;

pub(crate) fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
pub(crate) fn has_fields(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "{field} is missing in {value}");
    }
}

/// Returns the command's text output, in which no name may be shortened.
#[track_caller]
pub(crate) fn text(arguments: &[&str]) -> String {
    let text = String::from_utf8(doorbell(arguments).stdout).unwrap();
    assert!(!text.contains('…'), "{arguments:?}: {text}");
    text
}

#[test]
fn output_to_a_pipe_is_not_shortened() {
    let folder = PathBuf::from(test_data(""));
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let trees: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|it| it == "dtb")).collect();
    assert!(trees.len() > 10);
    for tree in trees {
        text(&["inspect", tree.to_str().unwrap()]);
    }
    text(&["inspect", &marina()]);
    text(&["machines"]);
}

#[test]
fn acpi_tables_are_found_by_file_name() {
    let folder = temporary("tables");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    let copy = |from: &str, to: &str| {
        std::fs::copy(PathBuf::from(marina()).join(from), folder.join(to)).unwrap()
    };
    copy("apic.aml", "apic.dat");
    copy("iort.aml", "IORT");
    copy("mcfg.aml", "dsdt.dat");
    std::fs::write(folder.join("iort.asl"), "source").unwrap();
    let report = json(&doorbell(&["inspect", "--json", folder.to_str().unwrap()]));
    let ids: Vec<_> = report["devices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|device| device["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids[..2],
        ["IORT/root-complex@0000", "IORT/root-complex@0001"],
        "MCFG has another name"
    );
    std::fs::remove_file(folder.join("apic.dat")).unwrap();
    let output = doorbell(&["inspect", folder.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        String::from_utf8(output.stderr).unwrap().contains("APIC byte 0x0: the table is absent")
    );
}

#[test]
fn inspect_converts_between_devicetree_and_iort_or_gives_a_reason() {
    let dts = doorbell(&["inspect", "--emit", "dts", &marina()]);
    assert_eq!(dts.status.code(), Some(0));
    let dts = String::from_utf8(dts.stdout).unwrap();
    assert!(dts.starts_with("/dts-v1/;") && dts.contains("msi-parent = <0x02 0x40>;"), "{dts}");
    let iort = doorbell(&["inspect", "--emit", "iort", &test_data("single-its.dtb")]);
    assert_eq!(iort.status.code(), Some(0));
    assert!(String::from_utf8(iort.stdout).unwrap().contains("Signature : \"IORT\""));
    let refused = doorbell(&["inspect", "--emit", "iort", &test_data("direct-lpi.dtb")]);
    assert_eq!((refused.status.code(), refused.stdout.len()), (Some(2), 0));
    let why = String::from_utf8(refused.stderr).unwrap();
    assert!(why.contains("ACPI has no structure for this kind of controller"), "{why}");
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn bench_prints_the_fields_and_cases_of_the_contract() {
    let output = doorbell(&["bench", "--json", "--rounds", "1", "--processes", "2"]);
    assert_eq!(output.status.code(), Some(0));
    let measured = json(&output);
    has_fields(&measured, &["version", "floor_ns", "cases"]);
    let cases = measured["cases"].as_array().unwrap();
    for case in cases {
        has_fields(case, &["name", "median_ns", "min_ns", "ratio", "of"]);
        assert!(case["min_ns"].as_f64() <= case["median_ns"].as_f64(), "{case}");
    }
    let case = |name: &str| cases.iter().find(|case| case["name"] == name).unwrap();
    assert_eq!(case("inject-1")["of"], "floor-translate-1");
    for name in [
        "inject-64k-random",
        "inject-ack-depth-57k",
        "route-update-16",
        "route-update-4096",
        "dispatch",
    ] {
        assert!(case(name)["ratio"].as_f64().unwrap() > 0.0, "{name}");
    }
}
