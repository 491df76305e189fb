//! Tests of the descriptions that commands read: the default, standard input, and descriptions with
//! errors.

use crate::test_data;
use serde_json::Value;
use std::fs::File;
use std::process::{Command, Output};

const HARBOUR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/machines/harbour.dtb");

fn doorbell(arguments: &[&str]) -> Output {
    let input = File::open(HARBOUR).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(arguments).stdin(input).output().unwrap()
}

fn printed(arguments: &[&str]) -> String {
    let output = doorbell(arguments);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn all_commands_default_to_the_same_machine() {
    for command in ["inspect", "graph"] {
        assert_eq!(printed(&[command]), printed(&[command, "--machine", "harbour"]), "{command}");
    }
    let device = ["explain", "01:00.0"];
    assert_eq!(printed(&device), printed(&[&device[..], &["--machine", "harbour"]].concat()));
    let page = ["report", "--simulate", "--messages", "1"];
    let named = printed(&[&page[..], &["--machine", "harbour"]].concat());
    assert!(printed(&page) == named && named.contains("harbour"));
    let run = ["run", "--simulate", "--messages", "1"];
    let named = printed(&[&run[..], &["--machine", "harbour"]].concat());
    assert!(printed(&run) == named && named.starts_with("harbour: "));
}

#[test]
fn naming_two_sources_is_refused() {
    for command in [&["inspect"][..], &["graph"], &["report"], &["explain", "01:00.0"]] {
        for more in [&[HARBOUR, "--machine", "harbour"][..], &[HARBOUR, "--running"]] {
            let arguments = [command, more].concat();
            assert_eq!(doorbell(&arguments).status.code(), Some(2), "{arguments:?}");
        }
    }
    assert_eq!(doorbell(&["lint", "--machine", "harbour"]).status.code(), Some(0));
    assert_eq!(doorbell(&["run", "--running", "--dtb", HARBOUR]).status.code(), Some(2));
}

#[test]
fn a_devicetree_is_read_from_standard_input() {
    let rows = |source: &str| -> Value {
        let mut all: Value =
            serde_json::from_str(&printed(&["inspect", "--json", source])).unwrap();
        all["source"] = Value::Null;
        all
    };
    assert_eq!(rows("-"), rows(HARBOUR));
    let run = printed(&["run", "--messages", "1", "--dtb", "-"]);
    assert!(run.starts_with("stdin: "), "{run}");
}

#[test]
fn a_run_reports_the_number_of_lint_errors() {
    let tree = test_data("direct-lpi.dtb");
    let clean = printed(&["run", "--messages", "1", "--dtb", &tree]);
    assert!(!clean.contains("lint"), "{clean}");
    let tree = test_data("mistakes.dtb");
    let output = doorbell(&["run", "--messages", "1", "--json", "--dtb", &tree]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let errors = report["lint_errors"].as_array().unwrap();
    let mut lint = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    let lint = lint.args(["lint", "--json", &tree]).output().unwrap();
    let findings: Value = serde_json::from_slice(&lint.stdout).unwrap();
    let findings = findings.as_array().unwrap();
    let expected = findings.iter().filter(|row| row["severity"] == "error");
    assert!(!errors.is_empty());
    assert_eq!(errors.len(), expected.count());
    let text = doorbell(&["run", "--messages", "1", "--dtb", &tree]);
    assert_eq!(text.status, output.status, "the verdict is that of the run");
    let text = String::from_utf8(text.stdout).unwrap();
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = format!("lint finds {} errors in the description of this machine", errors.len());
    assert!(words.contains(&said), "{text}");
    assert!(words.contains(&format!("see `doorbell lint {tree}`")), "{text}");
}
