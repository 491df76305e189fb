//! Runs every command that prints JSON. Objects have a version; arrays have none.

use crate::doorbell;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

const TREE: &str = "../machine/machines/harbour.dtb";
const GICV2: &str = "../../crates/gic-firmware/tests/data/gicv2m.dtb";
const STATE: &str = "tests/data/snapshot/documented.json";
const LINUX: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/json-linux");

/// Commands that print an object, with their other arguments.
const OBJECTS: [(&str, &[&str]); 9] = [
    ("", &["--simulate", "--messages", "1"]),
    ("run", &["--simulate", "--messages", "1"]),
    ("run", &["--dtb", GICV2]),
    ("inspect", &[TREE]),
    ("diff", &[TREE, GICV2]),
    ("live", &["--root", LINUX]),
    ("live", &["--root", LINUX, "--explain", "00:02.0"]),
    ("snapshot inspect", &[STATE]),
    ("snapshot explain", &[STATE, "--intid", "27", "--vcpu", "0"]),
];

/// Commands that print an array.
const ARRAYS: [(&str, &[&str]); 5] = [
    ("machines", &[]),
    ("explain", &[TREE, "0x10100"]),
    ("lint", &[TREE]),
    ("snapshot lint", &[STATE]),
    ("snapshot diff", &[STATE, STATE]),
];

fn printed(command: &str, arguments: &[&str]) -> String {
    let words = command.split_whitespace().chain(arguments.iter().copied());
    doorbell(&words.collect::<Vec<_>>()).out
}

fn json((command, arguments): (&str, &[&str])) -> Value {
    let text = printed(command, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{command}: {error}: {text}"))
}

/// Adds the commands below `command` whose help lists `--json`.
fn collect(command: &str, found: &mut BTreeSet<String>) {
    let help = printed(command, &["--help"]);
    if help.contains("--json\n") {
        found.insert(command.to_owned());
    }
    let Some((_, list)) = help.split_once("Commands:\n") else { return };
    for line in list.lines().take_while(|line| !line.is_empty()) {
        let name = line.strip_prefix("  ").unwrap().split(' ').next().unwrap();
        if !["", "help"].contains(&name) {
            collect(format!("{command} {name}").trim(), found);
        }
    }
}

#[test]
fn json_objects_have_a_version_and_lists_are_arrays() {
    let function = Path::new(LINUX).join("sys/bus/pci/devices/0000:00:02.0");
    fs::create_dir_all(&function).unwrap();
    fs::write(function.join("config"), [0; 256]).unwrap();
    for case in OBJECTS {
        assert_eq!(json(case)["version"], 1, "{case:?}");
    }
    for case in ARRAYS {
        assert!(json(case).is_array(), "{case:?}");
    }
}

#[test]
fn every_command_that_prints_json_is_tested() {
    let mut found = BTreeSet::new();
    collect("", &mut found);
    // A measurement takes long: `bench_prints_the_fields_of_the_contract` runs it.
    assert!(found.remove("bench"), "{found:?}");
    let tested = OBJECTS.into_iter().chain(ARRAYS).map(|(command, _)| command.to_owned());
    assert_eq!(found, tested.collect());
}
