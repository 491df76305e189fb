//! Tests of dumps as sources.

use crate::{Folder, Said, command, marina, path, table};
use serde_json::Value;
use std::fmt::Write as _;

/// Runs the command in the folder of an overlay and its base.
fn doorbell(arguments: &[&str]) -> Said {
    let overlays = path("../../crates/gic-firmware/tests/overlay");
    Said::of(command(arguments).current_dir(overlays).output().unwrap())
}

/// Writes tables as `acpidump` does.
fn dumped() -> String {
    let mut text = String::new();
    for name in ["apic", "iort", "mcfg"] {
        writeln!(text, "{} @ 0x0000000000000000", name.to_uppercase()).unwrap();
        for (number, bytes) in table(name).chunks(16).enumerate() {
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
    let (folder, text) = (Folder::new("acpi-dump"), dumped());
    folder.write("acpidump.txt", &text);
    let (dump, marina) = (&*folder.path("acpidump.txt"), &*marina());
    let inspected = |source: &str| {
        let mut all = doorbell(&["inspect", "--json", source]).json();
        all["source"] = Value::Null;
        all
    };
    assert_eq!(inspected(dump), inspected(marina));
    let status = |source| doorbell(&["lint", source]).status;
    assert_eq!(status(dump), status(marina));
    for source in [dump, marina, "base.dtb"] {
        let run = doorbell(&["run", source, "--simulate", "--messages", "1"]);
        let option = if source == marina { "--acpi" } else { "--dtb" };
        let same = doorbell(&["run", option, source, "--simulate", "--messages", "1"]);
        assert_eq!((run.status, run.out), (same.status, same.out), "{source}");
    }
    let cut = text.lines().enumerate().filter(|(at, _)| *at != 3).map(|(_, line)| line);
    folder.write("acpidump.txt", cut.collect::<Vec<_>>().join("\n"));
    let said = doorbell(&["inspect", dump]).err;
    assert!(said.contains("line 4: APIC has 0x20 bytes before 0x30"), "{said}");
}
