//! Tests for the output and exit status of `doorbell snapshot`.

use crate::{Folder, Said, path};
use serde_json::Value;
use std::collections::BTreeSet;

/// Returns the folder with a real KVM's snapshots. Each file is named after the procedure that
/// saved it.
fn folder() -> Folder {
    Folder(path("tests/data/snapshot").into())
}

/// Runs a subcommand of `doorbell snapshot` in that folder.
fn snapshot(arguments: &[&str]) -> Said {
    folder().run(&[&["snapshot"], arguments].concat())
}

/// Runs a subcommand that ends with this status, and returns its standard output.
#[track_caller]
fn text(arguments: &[&str], status: i32) -> String {
    snapshot(arguments).with_status(status).out
}

#[track_caller]
fn json(arguments: &[&str], status: i32) -> Value {
    snapshot(&[arguments, &["--json"]].concat()).with_status(status).json()
}

#[track_caller]
fn check_width(text: &str) {
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

/// Saved by Linux's documented procedure.
const DOCUMENTED: &str = "documented.json";
/// Saved with an MPIDR of 0 for all vCPUs.
const FIRST_CPU_FOR_ALL: &str = "first-cpu-for-all.json";

#[test]
fn the_output_of_inspect_fits_one_screen() {
    let text = text(&["inspect", DOCUMENTED], 0);
    assert!(text.lines().count() <= 24, "{text}");
    check_width(&text);
    for shown in ["0.0.0.1", "0x40060000", "0x8080000", "1 at 0x40020000", "2 at 0x40030000"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    let summary = json(&["inspect", DOCUMENTED], 0);
    assert_eq!(summary["its"][0]["events_pending"], 3);
    assert_eq!(summary["cpus"][1]["lpis_pending"], 3);
}

#[test]
fn snapshot_lint_exits_with_the_same_statuses_as_lint() {
    let output = text(&["lint", DOCUMENTED], 0);
    assert_eq!(output, "0 errors, 0 warnings, 0 notes; 1 of 1 file without findings\n");
    let output = text(&["lint", DOCUMENTED, FIRST_CPU_FOR_ALL], 1);
    assert!(output.contains("error[shared-pending-table]: several vCPUs have"), "{output}");
    text(&["lint", FIRST_CPU_FOR_ALL, "--allow", "shared-pending-table"], 0);
    text(&["lint", "Cargo.toml"], 2);
    text(&["lint", DOCUMENTED, "--allow", "nothing"], 2);
}

#[test]
fn lint_prints_all_fields_of_a_finding() {
    let findings = json(&["lint", "pages-before-tables.json"], 1);
    for field in ["source", "rule", "severity", "where", "message", "fix"] {
        assert!(findings[0][field].is_string(), "{field}");
    }
    assert_eq!(findings[0]["rule"], "table-not-included");
}

#[test]
fn lint_lists_all_rules() {
    let rules = text(&["lint", "--rules"], 0);
    let names: BTreeSet<_> = rules.lines().map(|rule| rule.split_whitespace().next()).collect();
    assert_eq!((names.len(), rules.lines().count()), (30, 30));
    check_width(&rules);
}

#[test]
fn snapshot_diff_names_the_overwritten_registers() {
    assert_eq!(text(&["diff", DOCUMENTED, DOCUMENTED], 0), "no differences\n");
    let differences = text(&["diff", DOCUMENTED, FIRST_CPU_FOR_ALL], 1);
    let line = differences.lines().find(|line| line.contains("GICR_PENDBASER")).unwrap();
    assert!(line.starts_with("CPU 0.0.0.1: GICR_PENDBASER 0x"), "{line}");
    let json = json(&["diff", DOCUMENTED, FIRST_CPU_FOR_ALL], 1);
    assert_eq!(json[0]["object"], "CPU 0.0.0.1");
}

#[test]
fn explain_names_the_obstacle_that_stops_an_interrupt() {
    let event = ["--device", "8", "--event", "0x1"];
    text(&[&["explain", DOCUMENTED], &event[..]].concat(), 0);
    let explanation = text(&[&["explain", "pages-before-tables.json"], &event[..]].concat(), 1);
    check_width(&explanation);
    for said in ["no mapping of DeviceID 0x8", "[table-not-included] ", ": the device table"] {
        assert!(explanation.contains(said), "{said}: {explanation}");
    }
    let interrupt = ["explain", FIRST_CPU_FOR_ALL, "--intid", "8193", "--vcpu", "1"];
    assert_eq!(json(&interrupt, 1)["explanation"]["stage"], "pending");
    text(&["explain", DOCUMENTED], 2);
    let explanation = text(&[&interrupt[..], &["--as-if-pending"]].concat(), 1);
    let start = "the interrupt is not pending in the snapshot; if it were:\n\
                 error[shared-pending-table] vCPUs 0, 1: ";
    assert!(explanation.starts_with(start), "{explanation}");
    assert!(explanation.contains("\nno other obstacle was found\n"), "{explanation}");
}

#[test]
fn an_unreadable_file_is_a_finding() {
    let rows = json(&["lint", "missing.json", DOCUMENTED], 2);
    assert_eq!(crate::rows(&rows).len(), 1);
    let row = &rows[0];
    assert!(row["rule"] == "unreadable-file" && row["source"] == "missing.json", "{row}");
    let text = text(&["lint", "missing.json"], 2);
    assert!(text.contains("cannot read missing.json") && text.contains("1 error,"), "{text}");
}

#[test]
fn a_snapshot_is_read_from_standard_input() {
    let mut named = json(&["inspect", DOCUMENTED], 0);
    let mut piped = folder().run_on(DOCUMENTED, &["snapshot", "inspect", "--json", "-"]).json();
    (named["source"], piped["source"]) = (Value::Null, Value::Null);
    assert_eq!(piped, named);
}
