//! The contract of `doorbell matrix`. Its output is also compared with the documentation.

use crate::doorbell;
use serde_json::Value;
use std::path::PathBuf;

#[test]
fn each_matrix_cell_has_its_fields_and_each_refusal_a_reason() {
    let output = doorbell(&["matrix", "--json"]);
    assert_eq!(output.status.code(), Some(0));
    let cells: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let named = |field: &str, name: &str| cells.iter().filter(|cell| cell[field] == name).count();
    let pci = ["pci-msi", "pci-multi-msi", "pci-msix", "ath11k", "ims-ring", "ims-queue"];
    for endpoint in pci.into_iter().chain(["platform", "emulated"]) {
        assert_eq!(named("endpoint", endpoint), cells.len() / 8, "{endpoint}");
    }
    for parent in ["its", "direct-lpi", "mbi", "v2m", "x86-vector", "hyperv-spi", "hyperv-x86"] {
        assert!(named("parent", parent) > 0, "{parent}");
    }
    // The two kinds of virtual bus exist only in a guest, each in combination with eight endpoints.
    for (world, more) in [("bare-metal", 0), ("guest", 2 * 8), ("guest-remapped", 0)] {
        assert_eq!(named("world", world), (cells.len() - 2 * 8) / 3 + more, "{world}");
    }
    for cell in &cells {
        let fields: Vec<_> = cell.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["endpoint", "layer", "outcome", "parent", "reason", "world"]);
        assert_eq!(cell["outcome"] == "refused", cell["reason"].is_string(), "{cell}");
        assert!(cell["outcome"] == "works" || cell["outcome"] == "refused", "{cell}");
    }
    assert_eq!(named("outcome", "works") + named("outcome", "refused"), cells.len());
}

/// Compares the output with the table in the documentation, which is between fences.
#[test]
fn the_documented_matrix_matches_the_printed_one() {
    let output = doorbell(&["matrix"]);
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/matrix.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, behind) = page.split_once("```text\n").unwrap();
    let (table, _) = behind.split_once("```\n").unwrap();
    assert_eq!(table, String::from_utf8(output.stdout).unwrap());
    assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
}
