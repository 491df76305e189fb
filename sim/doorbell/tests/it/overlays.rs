//! Tests of overlays and dumps as sources.

use serde_json::Value;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const OVERLAYS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../../crates/gic-firmware/tests/overlay");
const MARINA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../machine/machines/marina");

fn doorbell(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.args(arguments).current_dir(OVERLAYS).output().unwrap()
}

fn findings(arguments: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = doorbell(&[&["lint", "--json"], arguments].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn a_finding_names_the_overlay_that_introduces_it() {
    let (status, found) = findings(&["base.dtb", "first.dtbo", "second.dtbo"]);
    assert_eq!(status, Some(1), "{found:?}");
    let rule = |row: &&Value| row["rule"] == "interrupt-specifier";
    let found = found.iter().find(rule).unwrap();
    assert_eq!(found["overlay"], "first.dtbo");
    assert_eq!(found["source"], "base.dtb + first.dtbo + second.dtbo");
    assert!(findings(&["base.dtb"]).1.iter().all(|row| row["rule"] != "interrupt-specifier"));
    let text = doorbell(&["lint", "base.dtb", "first.dtbo"]).stdout;
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("only with the overlay first.dtbo"), "{text}");
    let said = doorbell(&["lint", "--github", "base.dtb", "first.dtbo"]).stdout;
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("file=first.dtbo,title=interrupt-specifier::"), "{said}");
}

#[test]
fn an_overlay_requires_a_matching_base() {
    for (sources, reason) in [
        (&["first.dtbo"][..], "name the devicetree before its overlays"),
        (&["base.dtb", "second.dtbo"], "has no node with the label \"new\""),
        (&[MARINA, "first.dtbo"], "name the devicetree before its overlays"),
    ] {
        let said = doorbell(&[&["lint"], sources].concat());
        let text = String::from_utf8(said.stdout).unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(reason), "{text}");
        assert_eq!(said.status.code(), Some(2));
    }
}

/// Writes tables as `acpidump` does.
fn dumped(folder: &Path) -> String {
    let mut text = String::new();
    for (name, file) in [("APIC", "apic.aml"), ("IORT", "iort.aml"), ("MCFG", "mcfg.aml")] {
        writeln!(text, "{name} @ 0x0000000000000000").unwrap();
        for (number, bytes) in fs::read(folder.join(file)).unwrap().chunks(16).enumerate() {
            write!(text, "    {:04X}:", number * 16).unwrap();
            for byte in bytes {
                write!(text, " {byte:02X}").unwrap();
            }
            writeln!(text, "  ................").unwrap();
        }
        text.push('\n');
    }
    text
}

#[test]
fn an_acpi_dump_is_read_like_a_folder_of_tables() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let text = dumped(Path::new(MARINA));
    let path = folder.join("acpidump.txt");
    fs::write(&path, &text).unwrap();
    let dump = path.to_str().unwrap();
    let inspected = |source: &str| {
        let output = doorbell(&["inspect", "--json", source]);
        let mut all: Value = serde_json::from_slice(&output.stdout).unwrap();
        all["source"] = Value::Null;
        all
    };
    assert_eq!(inspected(dump), inspected(MARINA));
    assert_eq!(findings(&[dump]).0, findings(&[MARINA]).0);
    for source in [dump, MARINA, "base.dtb"] {
        let run = doorbell(&["run", source, "--simulate", "--messages", "1"]);
        let option = if source == MARINA { "--acpi" } else { "--dtb" };
        let same = doorbell(&["run", option, source, "--simulate", "--messages", "1"]);
        assert_eq!(run, same, "{source}");
    }
    let cut: Vec<&str> =
        text.lines().enumerate().filter(|(at, _)| *at != 3).map(|(_, line)| line).collect();
    fs::write(&path, cut.join("\n")).unwrap();
    let said = String::from_utf8(doorbell(&["inspect", dump]).stderr).unwrap();
    assert!(said.contains("line 4: APIC has 0x20 bytes before 0x30"), "{said}");
}
