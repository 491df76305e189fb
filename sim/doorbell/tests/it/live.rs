//! Tests for the output and exit status of `doorbell live`.

use crate::{Folder, Said};
use std::fs;

const FUNCTION: &str = "sys/bus/pci/devices/0000:00:02.0";

/// A Linux that was booted with `pci=nomsi`. The only function supports MSI-X, but its driver uses
/// INTx.
struct Linux(Folder);

impl Linux {
    /// Creates the files of the Linux.
    fn new(name: &str) -> Self {
        let root = Folder::new(&format!("live-{name}"));
        let mut config = [0; 256];
        (config[0x34], config[0x3d], config[0x40]) = (0x40, 1, 0x11);
        root.write(&format!("{FUNCTION}/config"), config);
        root.write(&format!("{FUNCTION}/irq"), "19\n");
        let driver = root.0.join(format!("{FUNCTION}/driver"));
        std::os::unix::fs::symlink("../../drivers/nvme", driver).unwrap();
        root.write("proc/cmdline", "pci=nomsi\n");
        let table = "     CPU0  CPU1\n 19:  15  2  GICv3  37 Level  virtio1, nvme0q0\n";
        root.write("proc/interrupts", table);
        Self(root)
    }

    fn live(&self, arguments: &[&str]) -> Said {
        self.0.run(&[&["live", "--root", "."], arguments].concat())
    }
}

#[test]
fn faults_are_printed_with_a_fix_and_status_1() {
    let text = Linux::new("text").live(&[]).with_status(1).out;
    assert!(text.starts_with("firmware: unknown\n"), "{text}");
    let row = text.lines().find(|line| line.contains("nvme")).unwrap();
    let cells: Vec<_> = row.split_whitespace().collect();
    assert_eq!(cells, ["0000:00:02.0", "nvme", "none", "INTx", "1", "17"]);
    let fault = "0000:00:02.0: endpoint: the kernel's command line disables MSI and MSI-X\n  ";
    assert!(text.contains(fault) && text.contains("remove `nomsi`"), "{text}");
}

#[test]
fn an_explanation_shows_the_intx_fallback_and_its_interrupt_line() {
    let text = Linux::new("explain").live(&["--explain", "00:02.0"]).with_status(1).out;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "0000:00:02.0, driver nvme, INTx");
    assert!(lines[1].starts_with("endpoint: the kernel's command line"), "{text}");
    for line in [
        "INTx, which Linux uses instead:",
        "doorbell: input of INTID 37",
        "handler: the handler has run 17 times",
    ] {
        assert!(lines.contains(&line), "{text}");
    }
}

#[test]
fn a_watch_names_each_silent_function_and_its_reason() {
    let linux = Linux::new("watch");
    let said = linux.live(&["--watch", "0"]).with_status(1).out;
    let line = "0000:00:02.0 nvme: endpoint: the kernel's command line disables MSI and MSI-X";
    assert_eq!(said.lines().next(), Some(line));
    assert_eq!(linux.live(&["--watch", "0", "--json"]).json()[0]["id"], "0000:00:02.0");
}

#[test]
fn a_block_to_paste_has_the_machine_and_its_faults() {
    let linux = Linux::new("paste");
    linux.0.write("proc/sys/kernel/osrelease", "7.2.13\n");
    linux.0.write("sys/firmware/devicetree/base/model", "Harbour\0");
    let said = linux.live(&["--paste"]).with_status(1).out;
    assert!(said.contains(", Linux 7.2.13, Harbour\nfirmware /sys/"), "{said}");
    assert!(said.contains("\n0000:00:02.0, driver nvme, INTx\n"), "{said}");
    assert!(said.starts_with("```text\n") && said.ends_with("\n```\n"), "{said}");
}

#[test]
fn json_reports_and_explanations_have_the_same_device_fields() {
    let linux = Linux::new("json");
    let report = linux.live(&["--json"]).json();
    let device = &report["devices"][0];
    assert_eq!((&device["id"], &device["linux"]["mode"]), (&"0000:00:02.0".into(), &"intx".into()));
    assert_eq!(device["explanation"]["obstacle"]["setup"], "turned-off");
    assert_eq!(device["linux"]["interrupts"][0]["count"], 17);
    let mut explained = linux.live(&["--json", "--explain", "0000:00:02.0"]).json();
    assert_eq!(explained.as_object_mut().unwrap().remove("version"), Some(1.into()));
    assert_eq!(&explained, device);
}

#[test]
fn explaining_an_absent_function_exits_with_status_2() {
    let linux = Linux::new("absent");
    for (address, reason) in [
        ("0000:00:03.0", "no PCI device has the address 0000:00:03.0"),
        ("nvme", "\"nvme\" is not a PCI address"),
    ] {
        let said = linux.live(&["--explain", address]).with_status(2);
        assert!(said.err.contains(reason), "{address}");
    }
}

#[test]
fn unreadable_firmware_exits_with_status_2() {
    let linux = Linux::new("unreadable");
    let nothing = linux.0.run(&["live", "--root", "nothing"]).with_status(2).err;
    assert!(nothing.contains("contains neither the firmware nor the PCI devices"), "{nothing}");
    fs::remove_file(linux.0.0.join("proc/cmdline")).unwrap();
    linux.live(&[]).with_status(0);
    linux.0.write("sys/firmware/acpi/tables/APIC", "broken");
    let text = linux.live(&[]).with_status(2).out;
    assert!(text.contains("cannot read /sys/firmware/acpi/tables: "), "{text}");
}
