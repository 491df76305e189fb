//! Tests of the descriptions that commands read: the default, standard input, and descriptions with
//! errors.

use crate::{Folder, doorbell, path, printed, rows, test_data};
use serde_json::Value;

fn harbour() -> String {
    path("../machine/machines/harbour.dtb")
}

#[test]
fn all_commands_default_to_the_same_machine() {
    for command in [
        &["inspect"][..],
        &["graph"],
        &["explain", "01:00.0"],
        &["report", "--simulate", "--messages", "1"],
        &["run", "--simulate", "--messages", "1"],
    ] {
        let named = printed(&[command, &["--machine", "harbour"]].concat());
        assert!(printed(command) == named, "{command:?}");
        assert!(command[0] != "report" || named.contains("harbour"));
        assert!(command[0] != "run" || named.starts_with("harbour: "));
    }
}

#[test]
fn naming_two_sources_is_refused() {
    let harbour = harbour();
    for command in [&["inspect"][..], &["graph"], &["report"], &["explain", "01:00.0"]] {
        for more in [&[&*harbour, "--machine", "harbour"][..], &[&harbour, "--running"]] {
            doorbell(&[command, more].concat()).with_status(2);
        }
    }
    doorbell(&["lint", "--machine", "harbour"]).with_status(0);
    doorbell(&["run", "--running", "--dtb", &harbour]).with_status(2);
}

#[test]
fn a_devicetree_is_read_from_standard_input() {
    let folder = Folder(path("../machine/machines").into());
    let rows = |source: &str| -> Value {
        let said = folder.run_on("harbour.dtb", &["inspect", "--json", source]);
        let mut all = said.with_status(0).json();
        all["source"] = Value::Null;
        all
    };
    assert_eq!(rows("-"), rows("harbour.dtb"));
    let run = folder.run_on("harbour.dtb", &["run", "--messages", "1", "--dtb", "-"]);
    let run = run.with_status(0).out;
    assert!(run.starts_with("stdin: "), "{run}");
}

#[test]
fn a_run_reports_the_number_of_lint_errors() {
    let clean = printed(&["run", "--messages", "1", "--dtb", &test_data("direct-lpi.dtb")]);
    assert!(!clean.contains("lint"), "{clean}");
    let tree = test_data("mistakes.dtb");
    let run = ["run", "--messages", "1", "--dtb", &tree];
    let output = doorbell(&[&run[..], &["--json"]].concat());
    let report = output.json();
    let findings = doorbell(&["lint", "--json", &tree]).json();
    let expected = rows(&findings).iter().filter(|row| row["severity"] == "error");
    let errors = rows(&report["lint_errors"]).len();
    assert!(errors > 0);
    assert_eq!(errors, expected.count());
    let text = doorbell(&run);
    assert_eq!(text.status, output.status, "the verdict is that of the run");
    let words = text.out.split_whitespace().collect::<Vec<_>>().join(" ");
    let said = format!("lint finds {errors} errors in the description of this machine");
    assert!(words.contains(&said), "{words}");
    assert!(words.contains(&format!("see `doorbell lint {tree}`")), "{words}");
}
