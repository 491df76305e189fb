//! Linux as the judge of routes. UEFI firmware makes it read ACPI tables; the ports behind ports
//! that it finds signal by message, each with its own requester ID. The DeviceIDs that it maps at
//! the ITS must be those that the command predicts from the same tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::{Bench, qemu, same, text, walk};
use crate::apt::{self, Apt, Suite};
use crate::dtb::{Tools, Virt};
use crate::initramfs::{self, Content, File};
use crate::qemu::{PROGRAM, Version};
use crate::step::Tally;
use crate::workspace::Workspace;
use crate::{cache, process, small_linux};

/// A boot takes 5 seconds, on a busy machine more; what takes longer hangs.
const LIMIT: Duration = Duration::from_mins(3);
/// No user space: the kernel panics after it has found all devices, and QEMU ends.
const COMMAND_LINE: &str = "console=ttyAMA0 panic=-1";
const SURROUNDINGS: &[&str] =
    &["-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot"];
/// A switch with two ports behind a root port, and a root port behind a second root bus.
const PORTS: &[&str] = &[
    "-device",
    "pcie-root-port,id=root,chassis=1,slot=1",
    "-device",
    "x3130-upstream,id=switch,bus=root",
    "-device",
    "xio3130-downstream,bus=switch,chassis=2,slot=2",
    "-device",
    "xio3130-downstream,bus=switch,chassis=3,slot=3",
    "-device",
    "pxb-pcie,id=second,bus=pcie.0,bus_nr=128",
    "-device",
    "pcie-root-port,bus=second,chassis=4,slot=4",
];
const PORTS_FOUND: usize = 5;

/// An IORT whose DeviceIDs are not the requester IDs, which Linux takes from its first file system
/// (`Documentation/admin-guide/acpi/initrd_table_override.rst`).
const OTHER_IORT: &str = "xtask/src/acpi/linux/iort.asl";
const IORT_IN_INITRAMFS: &str = "kernel/firmware/acpi/iort.aml";

/// A machine, and the IORT that Linux is given instead of QEMU's, if any.
struct Case {
    machine: Virt,
    iort: Option<&'static str>,
}

const CASES: [Case; 3] = [
    Case { machine: ("ports", "gic-version=3", PORTS), iort: None },
    Case { machine: ("ports-behind-smmu", "gic-version=3,iommu=smmuv3", PORTS), iort: None },
    Case {
        machine: ("ports-by-our-iort", "gic-version=3,iommu=smmuv3", PORTS),
        iort: Some(OTHER_IORT),
    },
];

/// Each machine's DeviceIDs counted as a case.
pub(super) fn run(workspace: &Workspace, bench: &Bench, tally: &mut Tally) {
    let fetched = firmware(workspace).and_then(|firmware| {
        Ok((firmware, small_linux::fetch_kernel(workspace, Version::Stable.suite())?))
    });
    let (firmware, kernel) = match fetched {
        Ok(both) => both,
        Err(absent) => return tally.skip(format!("Linux with ACPI: {absent:#}")),
    };
    let judge = Judge { bench, workspace, tools: Tools::of(workspace), firmware, kernel };
    for case in CASES {
        if case.iort.is_some() && bench.iasl.is_none() {
            tally.skip(format!("{}: without iasl", case.machine.0));
            continue;
        }
        tally.case(&format!("{}, by Linux", case.machine.0), judge.judge(&case));
    }
}

/// QEMU's UEFI firmware, in the cache.
fn firmware(workspace: &Workspace) -> Result<PathBuf> {
    const FILE: &str = "usr/share/qemu-efi-aarch64/QEMU_EFI.fd";
    let folder = cache::folder(workspace).join("efi");
    if !cache::is_filled(&folder) {
        let apt = Apt::update(&cache::folder(workspace).join("apt"))?;
        cache::fill(&folder, || {
            let version = apt.newest("qemu-efi-aarch64", Suite::Stable)?;
            apt.download(&format!("qemu-efi-aarch64={version}"), &folder)?;
            let package = apt::packages_in(&folder)?.pop().context("nothing was downloaded")?;
            apt::unpack_matching(&package, &[&format!("./{FILE}")], &folder)?;
            fs::remove_file(package).map_err(Into::into)
        })?;
    }
    Ok(folder.join(FILE))
}

struct Judge<'a> {
    bench: &'a Bench,
    workspace: &'a Workspace,
    tools: Tools,
    firmware: PathBuf,
    kernel: PathBuf,
}

impl Judge<'_> {
    fn judge(&self, case: &Case) -> Result<()> {
        let name = case.machine.0;
        let tables = self.bench.folder.join(name);
        // Firmware has QEMU write bus numbers into the IORT anew: that changes which requesters
        // pass the SMMU, and no DeviceID.
        qemu::extract(&self.tools, &case.machine, &tables)?;
        let initramfs = case.iort.map(|source| self.replace(source, &tables)).transpose()?;
        let found = self.boot(&case.machine, initramfs.as_deref())?;
        let said = self.bench.inspect(&tables)?;
        let mut predicted = BTreeSet::new();
        for port in &found.ports {
            let host = format!("MCFG/{:04x}:", port.segment);
            let is_host = |device: &serde_json::Value| text(&device["id"]).starts_with(&host);
            predicted
                .extend(walk::shown(&said, is_host, port.requester)?.map(|(_, device)| device));
        }
        let (ports, devices) = (found.ports.len(), found.mapped.len());
        ensure!(ports == PORTS_FOUND, "Linux finds {ports} ports: {:x?}", found.ports);
        ensure!(devices == ports, "Linux maps {devices} devices: {:x?}", found.mapped);
        same("DeviceIDs that Linux maps", &predicted, &found.mapped)?;
        println!("{name}: Linux maps {:x?}, as predicted", found.mapped);
        Ok(())
    }

    /// Puts the compiled `source` in the place of the IORT in `tables`, and into a first file
    /// system for Linux.
    fn replace(&self, source: &str, tables: &Path) -> Result<PathBuf> {
        let compiled = self.bench.folder.join("iort-for-linux");
        let source = self.workspace.root.join(source);
        process::capture(self.bench.iasl()?.arg("-p").arg(&compiled).arg(&source))?;
        let table = fs::read(compiled.with_extension("aml"))?;
        fs::write(tables.join("IORT"), &table)?;
        let initramfs = compiled.with_extension("cpio");
        let file = File { path: IORT_IN_INITRAMFS, content: Content::Data(table) };
        fs::write(&initramfs, initramfs::pack(&[file]))?;
        Ok(initramfs)
    }

    fn boot(
        &self,
        (name, options, arguments): &Virt,
        initramfs: Option<&Path>,
    ) -> Result<FoundDevices> {
        let trace = self.bench.folder.join(name).with_extension("trace");
        let mut qemu = self.tools.command(PROGRAM);
        qemu.args(["-M", &format!("virt,{options}"), "-cpu", "cortex-a57", "-m", "512M"]);
        qemu.args(SURROUNDINGS).args(*arguments).args(["-append", COMMAND_LINE]);
        qemu.arg("-bios").arg(&self.firmware).arg("-kernel").arg(&self.kernel);
        qemu.args(["-trace", "gicv3_its_cmd_mapd", "-D"]).arg(&trace);
        if let Some(initramfs) = initramfs {
            qemu.arg("-initrd").arg(initramfs);
        }
        let mut found = FoundDevices::default();
        process::watch(&mut qemu, LIMIT, |line| found.ports.extend(Port::read(line)))?;
        found.mapped = fs::read_to_string(&trace)?.lines().filter_map(mapped).collect();
        Ok(found)
    }
}

/// Devices that Linux finds, and maps.
#[derive(Debug, Default)]
struct FoundDevices {
    ports: BTreeSet<Port>,
    /// DeviceIDs.
    mapped: BTreeSet<u64>,
}

/// A PCI Express port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    segment: u64,
    requester: u64,
}

impl Port {
    /// `[…] pci 0000:80:00.0: [1b36:000c] type 01 class 0x060400`.
    fn read(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once(" pci ")?;
        let (address, what) = rest.split_once(": ")?;
        what.contains("] type 01 ").then_some(())?;
        let numbers = address.split([':', '.']).map(|digits| u64::from_str_radix(digits, 16).ok());
        match numbers.collect::<Option<Vec<_>>>()?[..] {
            [segment, bus, device, function] => {
                Some(Self { segment, requester: bus << 8 | device << 3 | function })
            }
            _ => None,
        }
    }
}

/// The DeviceID of a line of the trace, `… MAPD DeviceID 0x8 Size 0x0 ITT_addr 0x5c7914 V 1`.
fn mapped(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" DeviceID 0x")?;
    line.ends_with(" V 1").then_some(())?;
    u64::from_str_radix(rest.split_once(' ')?.0, 16).ok()
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn ports_are_read_from_the_console() {
        let line = "[    0.31] pci 0002:80:02.1: [1b36:000c] type 01 class 0x060400\r";
        assert_eq!(Port::read(line), Some(Port { segment: 2, requester: 0x8011 }));
        assert_eq!(Port::read(&line.replace("type 01", "type 00")), None);
        assert_eq!(Port::read("[    0.31] pci 0000:80:00.0: BAR 0 [mem 0x0-0xfff]"), None);
    }

    #[test]
    fn mappings_are_read_from_the_trace() {
        let line = "gicv3_its_cmd_mapd GICv3 ITS: command MAPD DeviceID 0x208 Size 0x0 \
                    ITT_addr 0x40b5ae V 1";
        assert_eq!(mapped(line), Some(0x208));
        assert_eq!(mapped(&line.replace("V 1", "V 0")), None);
    }
}
