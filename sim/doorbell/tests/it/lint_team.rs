//! Tests for the options of `doorbell lint` that a team needs: baselines, suppressions, formats of
//! CI systems, and unreadable sources.

use crate::{Folder, board, rows, table};
use gic_firmware::{Controller, ControllerKind, Description, Fact, IntIdSpan, NodeId, Region};
use serde_json::Value;
use std::fs;

/// Creates the folder of a test.
fn folder(name: &str) -> Folder {
    Folder::new(&format!("lint-team-{name}"))
}

/// Writes the baseline of these sources.
fn accept(folder: &Folder, sources: &[&str]) {
    let said = folder.lint(&[sources, &["--json"]].concat());
    folder.write("known.json", said.out);
}

/// Returns a machine with an ITS at `base` whose references cannot carry a DeviceID
/// (`its-msi-cells`).
fn machine(base: u64) -> Description {
    let mut machine = board("harbour");
    machine.secondary_gics.clear();
    let gic = machine.gic.as_ref().unwrap().id.clone();
    machine.controllers.push(its(&gic, base));
    machine
}

fn its(gic: &NodeId, base: u64) -> Controller {
    let id = format!("{gic}/its@{base:x}");
    let mut its = Controller::its(id.as_str(), Region::new(base, 0x2_0000).unwrap());
    its.msi_cells = Fact::stated(2);
    its
}

const HERE: u64 = 0x7_0000_0000;
const THERE: u64 = 0x7_1000_0000;

#[test]
fn only_findings_missing_from_the_baseline_fail() {
    let folder = folder("new");
    folder.describe("a.dtb", &machine(HERE));
    assert_eq!(folder.lint(&["a.dtb"]).status, Some(1));
    accept(&folder, &["a.dtb"]);
    let said = folder.lint(&["a.dtb", "--baseline", "known.json"]);
    assert_eq!((said.status, said.err.as_str()), (Some(0), ""));
    assert_eq!(
        said.out,
        "0 errors, 0 warnings, 0 notes; 1 of 1 source without new findings; \
         not counted: 1 in the baseline\n"
    );
    let mut worse = machine(HERE);
    worse.controllers.push(its(&worse.gic.as_ref().unwrap().id.clone(), THERE));
    folder.describe("a.dtb", &worse);
    let said = folder.lint(&["a.dtb", "--baseline", "known.json"]);
    assert_eq!(said.status, Some(1));
    assert!(said.out.contains("its@710000000"), "{}", said.out);
    assert!(!said.out.contains("its@700000000"), "{}", said.out);
    let found = folder.lint(&["a.dtb", "--baseline", "known.json", "--json"]).json();
    let states: Vec<_> = rows(&found).iter().map(|row| row["baseline"].as_str().unwrap()).collect();
    assert_eq!(states, ["unchanged", "new"]);
}

#[test]
fn the_baseline_recognizes_a_moved_node() {
    let folder = folder("moved");
    folder.describe("a.dtb", &machine(HERE));
    accept(&folder, &["a.dtb"]);
    let fingerprint = folder.lint(&["a.dtb", "--json"]).json()[0]["fingerprint"].clone();
    folder.describe("a.dtb", &machine(THERE));
    let said = folder.lint(&["a.dtb", "--json", "--baseline", "known.json"]);
    assert_eq!((said.status, said.err.as_str()), (Some(0), ""));
    assert_eq!(said.json()[0]["fingerprint"], fingerprint);
    assert!(said.json()[0]["where"].as_str().unwrap().contains("its@710000000"));
}

#[test]
fn a_fixed_node_does_not_hide_a_new_fault_of_its_neighbor() {
    let folder = folder("neighbor");
    let mut both = machine(HERE);
    let sound = |both: &mut Description, index: usize| {
        let count = both.controllers.len();
        both.controllers[count - index].msi_cells = Fact::stated(1);
    };
    both.controllers.push(its(&both.gic.as_ref().unwrap().id.clone(), THERE));
    let (mut first, mut second) = (both.clone(), both);
    sound(&mut first, 1);
    sound(&mut second, 2);
    folder.describe("a.dtb", &first);
    accept(&folder, &["a.dtb"]);
    folder.describe("a.dtb", &second);
    let said = folder.lint(&["a.dtb", "--baseline", "known.json"]);
    assert_eq!(said.status, Some(1));
    assert!(said.err.contains("known.json: 1 finding of these sources no longer occur"));
}

#[test]
fn the_baseline_recognizes_shifted_table_structures() {
    let folder = folder("tables");
    let mut tables = ["apic", "iort", "mcfg"].map(|name| (name, table(name)));
    // Drop the ITS that the IORT's groups name, then insert an unknown structure before the rest.
    let madt = &mut tables[0].1;
    let mut at = 44;
    while madt[at] != 15 {
        at += usize::from(madt[at + 1]);
    }
    madt[at] = 0x80;
    let write = |tables: &[(&str, Vec<u8>); 3]| {
        for (name, bytes) in tables {
            folder.write(&format!("acpi/{name}.aml"), bytes);
        }
    };
    write(&tables);
    accept(&folder, &["acpi"]);
    let known = folder.lint(&["acpi", "--json"]).json();
    assert!(rows(&known).len() > 1, "{known}");
    let iort = &mut tables[1].1;
    let first = u32::from_le_bytes(iort[40..44].try_into().unwrap());
    assert_eq!(first, 48, "nodes follow the header");
    let said = folder.lint(&["acpi", "--baseline", "known.json"]);
    assert_eq!(said.status, Some(0), "{}", said.out);
    let rows = fs::read_to_string(folder.0.join("known.json")).unwrap();
    let moved = rows.replace("+0x", "+0x1");
    assert_ne!(rows, moved);
    folder.write("known.json", moved);
    let said = folder.lint(&["acpi", "--baseline", "known.json"]);
    assert_eq!(said.status, Some(0), "{}", said.out);
}

#[test]
fn sarif_states_fingerprints_baseline_and_suppressions() {
    let folder = folder("sarif");
    folder.describe("a b.dtb", &machine(HERE));
    accept(&folder, &["a b.dtb"]);
    let allow = "its-msi-cells@/x # unused";
    let said = folder.lint(&["a b.dtb", "--sarif", "--baseline", "known.json", "--allow", allow]);
    let run = said.json()["runs"][0].clone();
    let result = &run["results"][0];
    assert_eq!((said.status, &result["baselineState"]), (Some(0), &Value::from("unchanged")));
    let known: Value =
        serde_json::from_slice(&fs::read(folder.0.join("known.json")).unwrap()).unwrap();
    for name in ["doorbellFinding/v1", "primaryLocationLineHash"] {
        assert_eq!(result["partialFingerprints"][name], known[0]["fingerprint"]);
    }
    let physical = &result["locations"][0]["physicalLocation"];
    assert_eq!(physical["artifactLocation"]["uri"], "a%20b.dtb");
    assert_eq!(result["suppressions"], Value::Array(Vec::new()));
    let complaint = &run["invocations"][0]["toolConfigurationNotifications"][0];
    assert!(complaint["message"]["text"].as_str().unwrap().contains("matches no finding"));
    let said = folder.lint(&["a b.dtb", "--sarif", "--allow", "its-msi-cells@/ # unused"]);
    assert_eq!(said.status, Some(1));
    folder.write("allowed", "its-msi-cells # only PCI uses it");
    let said = folder.lint(&["a b.dtb", "--sarif", "--allow-file", "allowed"]);
    let accepted = &said.json()["runs"][0]["results"][0]["suppressions"][0];
    assert_eq!(said.status, Some(0));
    assert_eq!(accepted["kind"], "external");
    assert_eq!(accepted["justification"], "only PCI uses it");
}

#[test]
fn an_unreadable_source_is_a_finding_in_every_format() {
    let folder = folder("unreadable");
    folder.write("bad.dtb", "no devicetree");
    folder.write("empty/notes.txt", "no devicetree");
    for source in ["bad.dtb", "missing.dtb", "empty"] {
        let text = folder.lint(&[source]);
        assert!(text.out.starts_with("error[unreadable-source]: "), "{}", text.out);
        let total = "1 error, 0 warnings, 0 notes; 0 of 1 source without findings\n";
        assert!(text.out.ends_with(total), "{}", text.out);
        let summary = folder.lint(&[source, "--summary"]);
        assert!(summary.out.contains(" unreadable-source  error") && summary.err.contains(source));
        let json = folder.lint(&[source, "--json"]);
        let row = &json.json()[0];
        assert_eq!((&row["rule"], &row["source"]), (&"unreadable-source".into(), &source.into()));
        assert_eq!(row["severity"], "error");
        let sarif = folder.lint(&[source, "--sarif"]);
        let run = &sarif.json()["runs"][0];
        assert_eq!(run["results"][0]["ruleId"], "unreadable-source");
        assert_eq!(run["invocations"][0]["executionSuccessful"], false);
        let github = folder.lint(&[source, "--github"]);
        let start = format!("::error file={source},title=unreadable-source::");
        assert!(github.out.starts_with(&start), "{}", github.out);
        for said in [text, summary, json, sarif, github] {
            assert_eq!(said.status, Some(2), "{source}");
        }
    }
    accept(&folder, &["bad.dtb"]);
    assert_eq!(folder.lint(&["bad.dtb", "--baseline", "known.json"]).status, Some(2));
    assert_eq!(folder.lint(&["bad.dtb", "--allow", "all"]).status, Some(2));
    assert_eq!(folder.lint(&["bad.dtb", "--allow", "unreadable-source"]).status, Some(2));
    let compared = folder.lint(&["bad.dtb", "missing.dtb", "--same-machine", "--json"]);
    assert_eq!((compared.status, rows(&compared.json()).len()), (Some(2), 2));
}

#[test]
fn lint_reads_a_source_from_standard_input() {
    let folder = folder("stdin");
    folder.describe("a.dtb", &machine(HERE));
    let said = folder.run_on("a.dtb", &["lint", "--json", "-"]);
    assert_eq!((said.status, &said.json()[0]["source"]), (Some(1), &Value::from("stdin")));
    let twice = folder.lint(&["-", "-"]);
    assert_eq!(twice.status, Some(2));
    assert!(twice.err.contains("can be only one of the sources"), "{}", twice.err);
}

#[test]
fn the_baseline_recognizes_a_finding_with_a_changed_range() {
    let folder = folder("range");
    let board = |last: u32| {
        let mut estuary = board("estuary");
        let mbi = estuary.controllers.iter_mut().find(|one| one.kind == ControllerKind::Mbi);
        let range = IntIdSpan::new(gic_firmware::IntId::new(1000), last - 999).unwrap();
        mbi.unwrap().ranges.push(Fact::stated(range));
        estuary
    };
    folder.describe("a.dtb", &board(1025));
    let before = folder.lint(&["a.dtb", "--json"]).json();
    assert_eq!(before[0]["rule"], "mbi-range");
    accept(&folder, &["a.dtb"]);
    folder.describe("a.dtb", &board(1026));
    let said = folder.lint(&["a.dtb", "--json", "--baseline", "known.json"]);
    assert_eq!((said.status, &said.json()[0]["baseline"]), (Some(0), &Value::from("unchanged")));
}
