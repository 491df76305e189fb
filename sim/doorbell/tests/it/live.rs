//! Tests for the output and exit status of `doorbell live`.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const FUNCTION: &str = "sys/bus/pci/devices/0000:00:02.0";

fn live(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_doorbell"));
    command.arg("live").arg("--root").arg(root).args(arguments).output().unwrap()
}

fn write(root: &Path, path: &str, content: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Creates the files of a Linux that was booted with `pci=nomsi`, and returns their folder. The
/// only function supports MSI-X, but its driver uses INTx.
fn without_messages(name: &str) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("live-{name}"));
    drop(std::fs::remove_dir_all(&root));
    let mut config = [0; 256];
    (config[0x34], config[0x3d], config[0x40]) = (0x40, 1, 0x11);
    write(&root, &format!("{FUNCTION}/config"), &config);
    write(&root, &format!("{FUNCTION}/irq"), b"19\n");
    let driver = root.join(format!("{FUNCTION}/driver"));
    std::os::unix::fs::symlink("../../drivers/nvme", driver).unwrap();
    write(&root, "proc/cmdline", b"pci=nomsi\n");
    let table = b"     CPU0  CPU1\n 19:  15  2  GICv3  37 Level  virtio1, nvme0q0\n";
    write(&root, "proc/interrupts", table);
    root
}

#[test]
fn faults_are_printed_with_a_fix_and_status_1() {
    let output = live(&without_messages("text"), &[]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.starts_with("firmware: unknown\n"), "{text}");
    let row = text.lines().find(|line| line.contains("nvme")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells, ["0000:00:02.0", "nvme", "none", "INTx", "1", "17"]);
    let fault = "0000:00:02.0: endpoint: the kernel's command line disables MSI and MSI-X\n  ";
    assert!(text.contains(fault) && text.contains("remove `nomsi`"), "{text}");
}

#[test]
fn an_explanation_shows_the_intx_fallback_and_its_interrupt_line() {
    let output = live(&without_messages("explain"), &["--explain", "00:02.0"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "0000:00:02.0, driver nvme, INTx");
    assert!(lines[1].starts_with("endpoint: the kernel's command line"), "{text}");
    assert!(lines.contains(&"INTx, which Linux uses instead:"), "{text}");
    assert!(lines.contains(&"doorbell: input of INTID 37"), "{text}");
    assert!(lines.contains(&"handler: the handler has run 17 times"), "{text}");
}

#[test]
fn json_reports_and_explanations_have_the_same_device_fields() {
    let root = without_messages("json");
    let report: Value = serde_json::from_slice(&live(&root, &["--json"]).stdout).unwrap();
    let device = &report["devices"][0];
    assert_eq!((&device["id"], &device["linux"]["mode"]), (&"0000:00:02.0".into(), &"intx".into()));
    assert_eq!(device["explanation"]["obstacle"]["setup"], "turned-off");
    assert_eq!(device["linux"]["interrupts"][0]["count"], 17);
    let output = live(&root, &["--json", "--explain", "0000:00:02.0"]);
    let mut explained: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(explained.as_object_mut().unwrap().remove("version"), Some(1.into()));
    assert_eq!(&explained, device);
}

#[test]
fn explaining_an_absent_function_exits_with_status_2() {
    let root = without_messages("absent");
    for (address, reason) in [
        ("0000:00:03.0", "no PCI device has the address 0000:00:03.0"),
        ("nvme", "\"nvme\" is not a PCI address"),
    ] {
        let output = live(&root, &["--explain", address]);
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{address}");
    }
}

#[test]
fn unreadable_firmware_exits_with_status_2() {
    let root = without_messages("unreadable");
    let output = live(&root.join("nothing"), &[]);
    assert_eq!(output.status.code(), Some(2));
    let reason = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(reason.contains("contains neither the firmware nor the PCI devices"), "{reason}");
    std::fs::remove_file(root.join("proc/cmdline")).unwrap();
    assert_eq!(live(&root, &[]).status.code(), Some(0));
    write(&root, "sys/firmware/acpi/tables/APIC", b"broken");
    let output = live(&root, &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("cannot read /sys/firmware/acpi/tables: "), "{text}");
}
