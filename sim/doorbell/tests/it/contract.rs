//! The command's contract with other programs: JSON fields and exit statuses.

use crate::{Folder, doorbell, marina, printed, refusal, rows, test_data};
use serde_json::Value;
use std::fs;
use std::path::Path;

#[track_caller]
pub(crate) fn has_fields(value: &Value, fields: &[&str]) {
    for field in fields {
        assert!(value.get(field).is_some(), "{field} is missing in {value}");
    }
}

/// Returns the command's text output, in which no name may be shortened.
#[track_caller]
pub(crate) fn text(arguments: &[&str]) -> String {
    let text = doorbell(arguments).out;
    assert!(!text.contains('…'), "{arguments:?}: {text}");
    text
}

#[test]
fn output_to_a_pipe_is_not_shortened() {
    let files = fs::read_dir(test_data("")).unwrap().map(|entry| entry.unwrap().path());
    let trees: Vec<_> =
        files.filter(|file| file.extension().is_some_and(|it| it == "dtb")).collect();
    assert!(trees.len() > 10);
    for tree in trees {
        text(&["inspect", tree.to_str().unwrap()]);
    }
    text(&["inspect", &marina()]);
    text(&["machines"]);
    assert!(text(&["inspect", "--machine", "lagoon"]).contains(" and 3 more"));
}

#[test]
fn acpi_tables_are_found_by_file_name() {
    let folder = Folder::new("contract-tables");
    for (from, to) in [("apic.aml", "apic.dat"), ("iort.aml", "IORT"), ("mcfg.aml", "dsdt.dat")] {
        folder.write(to, fs::read(Path::new(&marina()).join(from)).unwrap());
    }
    folder.write("iort.asl", "source");
    let report = folder.run(&["inspect", "--json", "."]).json();
    let ids: Vec<_> = rows(&report["devices"]).iter().map(|device| &device["id"]).collect();
    let known = ["IORT/root-complex@0000", "IORT/root-complex@0001"];
    assert_eq!(ids[..2], known, "MCFG has another name");
    fs::remove_file(folder.0.join("apic.dat")).unwrap();
    let said = folder.run(&["inspect", "."]).with_status(2);
    assert!(said.err.contains("APIC byte 0x0: the table is absent"), "{}", said.err);
}

#[test]
fn inspect_converts_between_devicetree_and_iort_or_gives_a_reason() {
    let dts = printed(&["inspect", "--emit", "dts", &marina()]);
    assert!(dts.starts_with("/dts-v1/;") && dts.contains("msi-parent = <0x02 0x40>;"), "{dts}");
    let iort = printed(&["inspect", "--emit", "iort", &test_data("single-its.dtb")]);
    assert!(iort.contains("Signature : \"IORT\""), "{iort}");
    let why = refusal(&["inspect", "--emit", "iort", &test_data("direct-lpi.dtb")]);
    assert!(why.contains("ACPI has no structure for this kind of controller"), "{why}");
}

#[test]
#[ignore = "slow: `cargo xtask test --long` runs it"]
fn bench_prints_the_fields_of_the_contract() {
    let bench = ["bench", "--json", "--rounds", "1", "--processes", "2"];
    let measured = doorbell(&bench).with_status(0).json();
    has_fields(&measured, &["version", "floor_ns", "cases"]);
    for case in rows(&measured["cases"]) {
        has_fields(case, &["name", "median_ns", "min_ns", "ratio", "of"]);
        assert!(case["min_ns"].as_f64() <= case["median_ns"].as_f64(), "{case}");
    }
}
