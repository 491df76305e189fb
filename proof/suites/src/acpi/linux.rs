//! Compares the command's routes with the routes that Linux uses. UEFI firmware makes Linux read
//! ACPI tables. Each port that it finds signals by message, with a separate requester ID. The
//! DeviceIDs that Linux maps at the ITS must equal those that the command predicts from the same
//! tables.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use doorbell_harness::apt::Suite;
use doorbell_harness::dtb::Virt;
use doorbell_harness::initramfs::{self, Content, File};
use doorbell_harness::qemu::{CONSOLE, PROGRAM};
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::{hang, process, small_linux, workspace};

use super::judge::AcpiJudge;
use crate::acpi::{tables, walk};
use crate::fetched;
use crate::said::{same, text};

/// No user space: the kernel panics after it has found all devices, and QEMU exits.
const COMMAND_LINE: &str = "console=ttyAMA0 panic=-1";
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

/// An IORT whose DeviceIDs differ from the requester IDs. Linux reads it from its initramfs
/// (`Documentation/admin-guide/acpi/initrd_table_override.rst`).
const OTHER_IORT: &str = "proof/suites/src/acpi/iort.asl";
const IORT_IN_INITRAMFS: &str = "kernel/firmware/acpi/iort.aml";

/// A machine, and optionally an IORT that replaces QEMU's.
pub(crate) struct PortMachine {
    machine: Virt,
    iort: Option<&'static str>,
}

impl PortMachine {
    /// Returns the name of the machine.
    pub(crate) fn name(&self) -> &'static str {
        self.machine.0
    }
}

/// Machines on which Linux is booted.
pub(crate) const MACHINES: [PortMachine; 3] = [
    PortMachine { machine: ("ports", "gic-version=3", PORTS), iort: None },
    PortMachine { machine: ("ports-behind-smmu", "gic-version=3,iommu=smmuv3", PORTS), iort: None },
    PortMachine {
        machine: ("ports-by-our-iort", "gic-version=3,iommu=smmuv3", PORTS),
        iort: Some(OTHER_IORT),
    },
];

/// Compares the DeviceIDs that Linux maps on a machine with those that the command predicts.
pub(crate) fn compare(judge: &AcpiJudge, machine: &PortMachine) -> Result<()> {
    let name = machine.name();
    let tables = judge.folder.join(name);
    // Firmware makes QEMU write bus numbers into the IORT again, which changes the requesters
    // behind the SMMU, but no DeviceIDs.
    tables::extract(judge.tools()?, &machine.machine, &tables)?;
    let initramfs = machine.iort.map(|source| replace(judge, source, &tables)).transpose()?;
    let found = boot(judge, &machine.machine, initramfs.as_deref())?;
    let said = judge.inspect(&tables)?;
    let mut predicted = BTreeSet::new();
    for port in &found.ports {
        let host = format!("MCFG/{:04x}:", port.segment);
        let is_host = |device: &serde_json::Value| text(&device["id"]).starts_with(&host);
        predicted.extend(walk::shown(&said, is_host, port.requester)?.map(|(_, device)| device));
    }
    let (ports, devices) = (found.ports.len(), found.mapped.len());
    ensure!(ports == PORTS_FOUND, "Linux finds {ports} ports: {:x?}", found.ports);
    ensure!(devices == ports, "Linux maps {devices} devices: {:x?}", found.mapped);
    same("DeviceIDs that Linux maps", &predicted, &found.mapped)?;
    eprintln!("{name}: Linux maps {:x?}, as predicted", found.mapped);
    Ok(())
}

/// Replaces the IORT in `tables` with the compiled `source`, and packs it into an initramfs for
/// Linux.
fn replace(judge: &AcpiJudge, source: &str, tables: &Path) -> Result<PathBuf> {
    let compiled = judge.folder.join("iort-for-linux");
    let source = workspace::this()?.root.join(source);
    process::capture(judge.iasl()?.arg("-p").arg(&compiled).arg(&source))?;
    let table = fs::read(compiled.with_extension("aml"))?;
    fs::write(tables.join("IORT"), &table)?;
    let initramfs = compiled.with_extension("cpio");
    let file = File { path: IORT_IN_INITRAMFS, content: Content::Data(table) };
    fs::write(&initramfs, initramfs::pack(&[file]))?;
    Ok(initramfs)
}

fn boot(
    judge: &AcpiJudge,
    (name, options, arguments): &Virt,
    initramfs: Option<&Path>,
) -> Result<FoundDevices> {
    let kernel = small_linux::fetch_kernel(workspace::this()?, Suite::Stable).or_absent("Linux")?;
    let trace = judge.folder.join(name).with_extension("trace");
    let mut qemu = judge.tools()?.command(PROGRAM);
    qemu.args(["-M", &format!("virt,{options}"), "-cpu", "cortex-a57", "-m", "512M"]);
    qemu.args(CONSOLE).args(*arguments).args(["-append", COMMAND_LINE]);
    qemu.arg("-bios").arg(fetched::uefi()?).arg("-kernel").arg(kernel);
    qemu.args(["-trace", "gicv3_its_cmd_mapd", "-D"]).arg(&trace);
    if let Some(initramfs) = initramfs {
        qemu.arg("-initrd").arg(initramfs);
    }
    let mut found = FoundDevices::default();
    process::watch(&mut qemu, hang::RUN, |line| found.ports.extend(Port::read(line)))?;
    found.mapped = fs::read_to_string(&trace)?.lines().filter_map(mapped).collect();
    Ok(found)
}

/// The devices that Linux finds and maps.
#[derive(Debug, Default)]
pub(crate) struct FoundDevices {
    /// Ports listed on Linux's console.
    pub(crate) ports: BTreeSet<Port>,
    /// DeviceIDs that Linux maps at the ITS.
    pub(crate) mapped: BTreeSet<u64>,
}

/// A PCI Express port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port {
    /// PCI segment.
    pub(crate) segment: u64,
    /// Requester ID.
    pub(crate) requester: u64,
}

impl Port {
    /// Parses a line `[…] pci 0000:80:00.0: [1b36:000c] type 01 class 0x060400` of the console.
    pub(crate) fn read(line: &str) -> Option<Self> {
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

/// Parses a line of QEMU's trace, `… MAPD DeviceID 0x8 Size 0x0 ITT_addr 0x5c7914 V 1`, and returns
/// the DeviceID.
pub(crate) fn mapped(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once(" DeviceID 0x")?;
    line.ends_with(" V 1").then_some(())?;
    u64::from_str_radix(rest.split_once(' ')?.0, 16).ok()
}
