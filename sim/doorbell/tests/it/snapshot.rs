//! Tests for the output and exit status of `doorbell snapshot`.

use serde_json::Value;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Runs a subcommand of `doorbell snapshot` in the folder with a real KVM's snapshots. Each file is
/// named after the procedure that saved it.
fn snapshot(arguments: &[&str]) -> Output {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/snapshot");
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.current_dir(folder).arg("snapshot").args(arguments).output().unwrap()
}

/// Runs a subcommand, and returns its exit status and standard output.
#[track_caller]
fn text(arguments: &[&str]) -> (Option<i32>, String) {
    let output = snapshot(arguments);
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[track_caller]
fn check_width(text: &str) {
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

fn json(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = snapshot(&[arguments, &["--json"]].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

fn saved(procedure: &str) -> String {
    format!("{procedure}.json")
}

#[test]
fn the_output_of_inspect_fits_one_screen() {
    let (status, text) = text(&["inspect", &saved("documented")]);
    assert_eq!(status, Some(0));
    assert!(text.lines().count() <= 24, "{text}");
    check_width(&text);
    for shown in ["0.0.0.1", "0x40060000", "0x8080000", "1 at 0x40020000", "2 at 0x40030000"] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
    let (_, summary) = json(&["inspect", &saved("documented")]);
    assert_eq!(summary["its"][0]["events_pending"], 3);
    assert_eq!(summary["cpus"][1]["lpis_pending"], 3);
}

#[test]
fn snapshot_lint_exits_with_the_same_statuses_as_lint() {
    let (status, output) = text(&["lint", &saved("documented")]);
    assert_eq!(
        (status, output.as_str()),
        (Some(0), "0 errors, 0 warnings; 1 of 1 file without findings\n")
    );
    let (status, output) = text(&["lint", &saved("documented"), &saved("first-cpu-for-all")]);
    assert_eq!(status, Some(1));
    assert!(output.contains("error[shared-pending-table]: several vCPUs have"), "{output}");
    let allowed = ["--allow", "shared-pending-table"];
    let (status, _) = text(&[&["lint", &saved("first-cpu-for-all")], &allowed[..]].concat());
    assert_eq!(status, Some(0));
    assert_eq!(text(&["lint", "Cargo.toml"]).0, Some(2));
    assert_eq!(text(&["lint", &saved("documented"), "--allow", "nothing"]).0, Some(2));
}

#[test]
fn lint_prints_all_fields_of_a_finding() {
    let (status, findings) = json(&["lint", &saved("pages-before-tables")]);
    assert_eq!(status, Some(1));
    for field in ["source", "rule", "severity", "where", "message", "fix"] {
        assert!(findings[0][field].is_string(), "{field}");
    }
    assert_eq!(findings[0]["rule"], "table-not-included");
}

#[test]
fn lint_lists_all_rules() {
    let (status, rules) = text(&["lint", "--rules"]);
    assert_eq!((status, rules.lines().count()), (Some(0), 30));
    check_width(&rules);
}

#[test]
fn snapshot_diff_names_the_overwritten_registers() {
    let (one, other) = (saved("documented"), saved("first-cpu-for-all"));
    assert_eq!(text(&["diff", &one, &one]), (Some(0), "no differences\n".to_owned()));
    let (status, differences) = text(&["diff", &one, &other]);
    assert_eq!(status, Some(1));
    let line = differences.lines().find(|line| line.contains("GICR_PENDBASER")).unwrap();
    assert!(line.starts_with("CPU 0.0.0.1: GICR_PENDBASER 0x"), "{line}");
    assert_eq!(json(&["diff", &one, &other]).1[0]["object"], "CPU 0.0.0.1");
}

#[test]
fn explain_names_the_obstacle_that_stops_an_interrupt() {
    let event = ["--device", "8", "--event", "0x1"];
    let explain = |file: &str| text(&[&["explain", file], &event[..]].concat());
    assert_eq!(explain(&saved("documented")).0, Some(0));
    let (status, explanation) = explain(&saved("pages-before-tables"));
    assert_eq!(status, Some(1));
    check_width(&explanation);
    assert!(explanation.contains("no mapping of DeviceID 0x8"), "{explanation}");
    let interrupt = ["--intid", "8193", "--vcpu", "1"];
    let (status, answer) =
        json(&[&["explain", &saved("first-cpu-for-all")], &interrupt[..]].concat());
    assert_eq!((status, answer["explanation"]["stage"].as_str()), (Some(1), Some("pending")));
    assert_eq!(text(&["explain", &saved("documented")]).0, Some(2));
    let assumed = ["explain", &saved("first-cpu-for-all"), "--as-if-pending"];
    let (status, explanation) = text(&[&assumed[..], &interrupt[..]].concat());
    assert!(
        explanation.starts_with("the interrupt is not pending in the snapshot"),
        "{explanation}"
    );
    assert_eq!(status, Some(0), "{explanation}");
}

#[test]
fn an_unreadable_file_is_a_finding() {
    let (status, rows) = json(&["lint", "missing.json", &saved("documented")]);
    assert_eq!(status, Some(2));
    assert_eq!(rows.as_array().unwrap().len(), 1);
    assert_eq!(
        (&rows[0]["rule"], &rows[0]["source"]),
        (&"unreadable-file".into(), &"missing.json".into())
    );
    let (_, text) = text(&["lint", "missing.json"]);
    assert!(text.contains("cannot read missing.json") && text.contains("1 error,"), "{text}");
}

#[test]
fn a_snapshot_is_read_from_standard_input() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/snapshot");
    let file = std::fs::File::open(folder.join("documented.json")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    let output = command.args(["snapshot", "inspect", "--json", "-"]).stdin(file).output().unwrap();
    let (_, mut named) = json(&["inspect", &saved("documented")]);
    let mut piped: Value = serde_json::from_slice(&output.stdout).unwrap();
    (named["source"], piped["source"]) = (Value::Null, Value::Null);
    assert_eq!(piped, named);
}
