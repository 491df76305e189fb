//! Runs Debian's firmware for QEMU's `virt`, unmodified, as a guest: U-Boot and EDK2. Each also
//! runs on QEMU's own GIC, and must reach the same verdict there.
//!
//! Both enumerate PCI, read a file from an NVMe disk, and read flash. U-Boot polls its devices and
//! the counter; EDK2 also keeps variables in flash, and needs the timer's interrupt for its console
//! and its countdowns.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Ending, Fact, HypervisorFact};
use doorbell_harness::process;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::OrAbsent;
use doorbell_harness::workspace;

use crate::board::{Board, LIMIT, Record, SURROUNDINGS};
use crate::built::{self, TestCase};
use crate::debian;
use crate::files::Files;

/// Guest memory in MiB.
const MEMORY: u32 = 256;
/// Interval between moves, in milliseconds.
const MOVE_EVERY: u32 = 50;
const VERSION: Version = Version::Stable;
const DISK: &str = "nvme,serial=1,drive=disk,addr=1";
/// A file on the disk, which EDK2's shell executes.
const SCRIPT: (&str, &str) = (
    "startup.nsh",
    "echo doorbell\r\npci\r\nsetvar Kept -guid d00be110-0000-4000-8000-000000000001 -nv -bs =07\r\n\
     dmpstore Kept -guid d00be110-0000-4000-8000-000000000001\r\nreset -s\r\n",
);

/// A firmware.
#[derive(Clone, Copy, Debug)]
struct Firmware {
    name: &'static str,
    package: &'static str,
    file: &'static str,
    /// Keys that are typed from the start, and after the first lines that contain these words.
    keys: &'static str,
    dialog: &'static [(&'static str, &'static str)],
    /// Parts of the lines that the firmware must print.
    lines: &'static [&'static str],
    /// `true` if the firmware handles interrupts.
    has_interrupts: bool,
}

const U_BOOT: Firmware = Firmware {
    name: "U-Boot",
    package: "u-boot-qemu",
    file: "usr/lib/u-boot/qemu_arm64/u-boot.bin",
    // Some commands drop a key that is typed while they run.
    keys: "\r\r\r",
    dialog: &[
        ("=>", "pci; nvme scan; load nvme 0:1 0x41000000 startup.nsh; md.b 0x41000000 10\r"),
        ("echo doorbell.", "\rpoweroff\r"),
    ],
    lines: &[
        "Flash: 64 MiB",
        "00.01.00   0x1b36     0x0010     Mass storage controller",
        "echo doorbell.",
        "Loading Environment from Flash... *** Warning - bad CRC",
    ],
    has_interrupts: false,
};
const EDK2: Firmware = Firmware {
    name: "EDK2",
    package: "qemu-efi-aarch64",
    file: "usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    keys: "",
    dialog: &[],
    lines: &["UEFI Interactive Shell", "doorbell", "Vendor 1B36 Device 0010", "DataSize = 0x01"],
    has_interrupts: true,
};

/// A firmware on a number of vCPUs, each on its own CPU. Several vCPUs are moved.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case(Firmware, u8);

impl TestCase for Case {
    const ORDINARY: &'static [Self] = &[Self(U_BOOT, 4), Self(EDK2, 4)];
    const LONG: &'static [Self] = &[Self(U_BOOT, 1), Self(EDK2, 1)];

    fn name(self) -> String {
        let Self(firmware, vcpus) = self;
        let moved = if vcpus > 1 { ", moved" } else { "" };
        format!("Debian's {} on {vcpus} vCPUs{moved}", firmware.name)
    }

    fn limit(self) -> Duration {
        LIMIT.saturating_mul(2)
    }

    fn judge(self) -> Result<()> {
        let Self(firmware, vcpus) = self;
        let file = firmware.fetch().or_absent(firmware.package)?;
        let board = Board {
            vcpus,
            cpus: vcpus,
            devices: &[DISK.to_owned()],
            firmware: true,
            move_every: (vcpus > 1).then_some(MOVE_EVERY),
            record: Record { stats: true, ..Record::default() },
            ..Board::plain(VERSION, MEMORY)?
        };
        let files = Files { kernel: &file, initrd: None, append: "" };
        let guest = firmware.run(board.command(&[files])?, &self.name())?;
        ensure!(guest.ending == Some(Ending::Off), "the guest's machine was not turned off");
        ensure!(guest.faults.is_empty(), "{:#?}", guest.faults);
        let takes = !firmware.has_interrupts || guest.timers > 0;
        ensure!(takes, "the guest took no interrupt of its timer");
        ensure!(vcpus == 1 || guest.moves > 0, "the guest was not moved");
        let own =
            firmware.run(own_gic(vcpus, &file)?, &format!("{} of QEMU's GIC", self.name()))?;
        for (line, verdicts) in firmware.lines.iter().zip(guest.found.iter().zip(&own.found)) {
            ensure!(verdicts == (&true, &true), "`{line}` by the guest and by QEMU: {verdicts:?}");
        }
        Ok(())
    }
}

/// Returns the command for QEMU without the hypervisor.
fn own_gic(cpus: u8, firmware: &Path) -> Result<Command> {
    let mut qemu = built::tools(VERSION)?.command(qemu::PROGRAM);
    qemu.args(["-M", "virt,gic-version=3", "-cpu", "neoverse-n1"]).args(SURROUNDINGS);
    qemu.args(["-m", &format!("{MEMORY}M"), "-smp", &cpus.to_string(), "-device", DISK]);
    qemu.arg("-bios").arg(firmware);
    Ok(qemu)
}

/// The results of a run, from its output.
#[derive(Debug, Default)]
struct Report {
    /// For each of [`Firmware::lines`], whether it was printed.
    found: Vec<bool>,
    ending: Option<Ending>,
    faults: Vec<String>,
    timers: u64,
    moves: u64,
}

impl Firmware {
    /// Fetches the package's file into the cache.
    fn fetch(&self) -> Result<PathBuf> {
        let files = [self.file.to_owned()];
        let folder = debian::fetch(workspace::this()?, self.package, self.package, &files)?;
        Ok(folder.join(self.file))
    }

    fn run(&self, mut qemu: Command, name: &str) -> Result<Report> {
        let disk = built::folder()?.join(name.replace([' ', '\'', ','], "-").to_lowercase());
        fs::create_dir_all(&disk)?;
        fs::write(disk.join(SCRIPT.0), SCRIPT.1)?;
        let drive = format!("if=none,id=disk,format=raw,file=fat:rw:{}", disk.display());
        let (keyboard, mut keys) = io::pipe()?;
        keys.write_all(self.keys.as_bytes())?;
        let mut report = Report { found: vec![false; self.lines.len()], ..Report::default() };
        let (mut dialog, mut typed) = (self.dialog.iter().peekable(), Ok(()));
        process::watch(qemu.args(["-drive", &drive]).stdin(keyboard), LIMIT, |line| {
            report.line(line, self.lines);
            if let Some((_, answer)) = dialog.next_if(|(words, _)| line.contains(words)) {
                typed = keys.write_all(answer.as_bytes());
            }
        })
        .with_context(|| format!("{report:?}"))?;
        typed?;
        Ok(report)
    }
}

impl Report {
    fn line(&mut self, line: &str, wanted: &[&str]) {
        match Fact::parse(line) {
            Some(Fact::Hypervisor(HypervisorFact::Ended { how, .. })) => self.ending = Some(how),
            Some(Fact::Hypervisor(HypervisorFact::Fault { fault, .. })) => {
                self.faults.push(fault.into_owned());
            }
            Some(Fact::Hypervisor(HypervisorFact::Count { reason, times, .. }))
                if reason == "PPI taken" =>
            {
                self.timers = times;
            }
            Some(Fact::Hypervisor(HypervisorFact::Moved { times, grown: 0 })) => self.moves = times,
            Some(_) => {}
            None => {
                for (found, wanted) in self.found.iter_mut().zip(wanted) {
                    *found |= line.contains(wanted);
                }
            }
        }
    }
}
