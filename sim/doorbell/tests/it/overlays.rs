//! Tests of dumps as sources.

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
    let status = |source| doorbell(&["lint", source]).status.code();
    assert_eq!(status(dump), status(MARINA));
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
