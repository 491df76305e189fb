//! Runs programs for QEMU's `virt`, unmodified, as guests: Debian's U-Boot and EDK2, and
//! `el2/newcomer`. Each also runs on QEMU's own GIC, and must reach the same verdict there.
//!
//! Both firmwares enumerate PCI, read a file from an NVMe disk, and read flash. U-Boot polls its
//! devices and the counter; EDK2 also keeps variables in flash, and needs the timer's interrupt for
//! its console and its countdowns. The newcomer's program counts its timer's interrupts and its
//! SGIs, which the hypervisor must have counted too.
//!
//! If the suite's option `--guests DIR` names a folder with `Bsa.efi`, Arm's compliance suite for
//! the Base System Architecture (<https://github.com/ARM-software/bsa-acs>) runs on EDK2.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Ending, Fact, HypervisorFact};
use doorbell_harness::image::Image;
use doorbell_harness::process;
use doorbell_harness::qemu::{self, Version};
use doorbell_harness::suite::{self, Absent, OrAbsent, Shared};
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
/// Name of the disk's file that EDK2's shell executes.
const SCRIPT: &str = "startup.nsh";
/// Arm's compliance suite.
const COMPLIANCE: &str = "Bsa.efi";
/// Its rules on the PMU, which a guest does not have, and the guest's results.
const WITHOUT_PMU: [(&str, &str); 3] = [("9: ", "FAIL"), ("10: ", "SKIPPED"), ("54: ", "FAIL")];
/// Its rules on wake-up by the timers, which it skips if WFI completes earlier. A move ends a WFI.
const ENDED_WAITS: [(&str, &str); 2] = [("501: ", "SKIPPED"), ("502: ", "SKIPPED")];
/// The fewest results that the compliance suite prints.
const FEWEST_RULES: usize = 30;

/// A program for `virt`.
#[derive(Clone, Copy, Debug)]
struct Program {
    name: &'static str,
    source: Source,
    /// Contents of the disk's script.
    script: &'static str,
    /// Keys that are typed from the start, and after the first lines that contain these words.
    keys: &'static str,
    dialog: &'static [(&'static str, &'static str)],
    /// Parts of the lines that the program must print.
    lines: &'static [&'static str],
    takes: Interrupts,
}

/// Origin of a program's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    /// Firmware in a package of Debian's.
    Debian { package: &'static str, file: &'static str },
    /// `el2/newcomer`, which is a flat program.
    Newcomer,
}

/// The interrupts that a program must take.
#[derive(Clone, Copy, Debug)]
enum Interrupts {
    None,
    /// At least one timer interrupt.
    Timer,
    /// Exactly this number of timer interrupts, and as many SGIs.
    TimerAndSgis(u64),
}

const U_BOOT: Program = Program {
    name: "Debian's U-Boot",
    source: Source::Debian { package: "u-boot-qemu", file: "usr/lib/u-boot/qemu_arm64/u-boot.bin" },
    script: EDK2.script,
    // Some commands drop a key that is typed while they run.
    keys: "\r\r\r",
    dialog: &[
        (
            "=>",
            "pci; pci regions; pci bar 00.01.00; nvme scan; \
             load nvme 0:1 0x41000000 startup.nsh; md.b 0x41000000 10\r",
        ),
        ("echo doorbell.", "\rpoweroff\r"),
    ],
    lines: &[
        "Flash: 64 MiB",
        "0   0x0000000000000000 0x000000003eff0000 0x0000000000010000  io",
        "1   0x0000000010000000 0x0000000010000000 0x000000002eff0000  mem",
        "0   0x0000000010000000  0x0000000000004000  64     MEM",
        "00.01.00   0x1b36     0x0010     Mass storage controller",
        "echo doorbell.",
        "Loading Environment from Flash... *** Warning - bad CRC",
    ],
    takes: Interrupts::None,
};
const EDK2: Program = Program {
    name: "Debian's EDK2",
    source: Source::Debian {
        package: "qemu-efi-aarch64",
        file: "usr/share/qemu-efi-aarch64/QEMU_EFI.fd",
    },
    script: "echo doorbell\r\npci\r\nsetvar Kept -guid d00be110-0000-4000-8000-000000000001 -nv \
             -bs =07\r\ndmpstore Kept -guid d00be110-0000-4000-8000-000000000001\r\nreset -s\r\n",
    keys: "",
    dialog: &[],
    lines: &["UEFI Interactive Shell", "doorbell", "Vendor 1B36 Device 0010", "DataSize = 0x01"],
    takes: Interrupts::Timer,
};
const BSA: Program = Program {
    name: "Arm's compliance suite on Debian's EDK2",
    script: "Bsa.efi\r\nreset -s\r\n",
    lines: &["BSA tests complete"],
    ..EDK2
};
const NEWCOMER: Program = Program {
    name: "a newcomer's program",
    source: Source::Newcomer,
    script: "",
    keys: "",
    dialog: &[],
    lines: &["newcomer: 1000 timer interrupts, 1000 SGIs, 0 others"],
    takes: Interrupts::TimerAndSgis(1000),
};

/// A machine with a program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    program: Program,
    vcpus: u8,
    cpus: u8,
    is_moved: bool,
}

const fn moved(program: Program, vcpus: u8, cpus: u8) -> Case {
    Case { program, vcpus, cpus, is_moved: true }
}

impl TestCase for Case {
    // The hypervisor traps WFI only if the vCPUs share a CPU.
    const ORDINARY: &'static [Self] =
        &[moved(U_BOOT, 4, 4), moved(EDK2, 4, 4), moved(NEWCOMER, 1, 1), moved(NEWCOMER, 2, 1)];
    const LONG: &'static [Self] = &[
        Self { is_moved: false, ..moved(U_BOOT, 1, 1) },
        Self { is_moved: false, ..moved(EDK2, 1, 1) },
    ];

    fn name(self) -> String {
        let Self { program, vcpus, cpus, is_moved } = self;
        let moved = if is_moved { ", moved" } else { "" };
        format!("{} on {vcpus} vCPUs of {cpus} CPUs{moved}", program.name)
    }

    fn limit(self) -> Duration {
        LIMIT.saturating_mul(2)
    }

    fn judge(self) -> Result<()> {
        self.judge_with(None)
    }
}

/// Lists the cases of Arm's compliance suite, which are skipped if the folder does not have it.
pub(crate) fn compliance_cases(folder: Option<&Path>) -> Vec<suite::Case> {
    let unmoved = Case { is_moved: false, ..moved(BSA, 2, 2) };
    let cases = [moved(BSA, 1, 1), unmoved, moved(BSA, 4, 4), moved(BSA, 8, 2)];
    let case = |case: Case| {
        let folder = folder.map(Path::to_path_buf);
        built::case(case.name(), case.limit(), move || {
            let file = folder.map(|folder| folder.join(COMPLIANCE)).filter(|file| file.exists());
            let absent =
                || Absent::new(format!("`-- --guests DIR` names the folder of {COMPLIANCE}"));
            case.judge_with(Some(&file.ok_or_else(absent)?))
        })
    };
    cases.map(case).into()
}

impl Case {
    /// Runs the program with another file on its disk.
    fn judge_with(self, other: Option<&Path>) -> Result<()> {
        let Self { program, vcpus, cpus, is_moved } = self;
        let file = program.fetch()?;
        let board = Board {
            vcpus,
            cpus,
            devices: &program.devices(),
            firmware: program.is_firmware(),
            move_every: is_moved.then_some(MOVE_EVERY),
            record: Record { stats: true, ..Record::default() },
            ..Board::plain(VERSION, MEMORY)?
        };
        let files = Files { kernel: &file, initrd: None, append: "" };
        let guest = program.run(board.command(&[files])?, &self.name(), other)?;
        ensure!(guest.ending == Some(Ending::Off), "the guest's machine was not turned off");
        ensure!(guest.faults.is_empty(), "{:#?}", guest.faults);
        guest.judge_taken(program.takes)?;
        ensure!(!is_moved || guest.moves > 0, "the guest was not moved");
        let own = program.run_on_own_gic(vcpus, &file, &self.name(), other)?;
        for (line, verdicts) in program.lines.iter().zip(guest.found.iter().zip(&own.found)) {
            ensure!(verdicts == (&true, &true), "`{line}` by the guest and by QEMU: {verdicts:?}");
        }
        let ended_waits: &[_] = if is_moved { &ENDED_WAITS } else { &[] };
        let exceptions = || WITHOUT_PMU.iter().chain(ended_waits);
        let is_expected = |rule: &&String| {
            exceptions().any(|(number, result)| rule.starts_with(number) && rule.ends_with(result))
        };
        let is_excepted = |rule: &&String| exceptions().any(|(number, _)| rule.starts_with(number));
        let of_guest = guest.rules.difference(&own.rules).filter(|rule| !is_expected(rule));
        let of_qemu = own.rules.difference(&guest.rules).filter(|rule| !is_excepted(rule));
        let differ: Vec<_> = of_guest.chain(of_qemu).collect();
        let has_rules = other.is_none() || own.rules.len() >= FEWEST_RULES;
        ensure!(has_rules, "QEMU's machine has only these results: {:#?}", own.rules);
        ensure!(differ.is_empty(), "the guest's results differ from QEMU's: {differ:#?}");
        Ok(())
    }
}

/// The results of a run, from its output.
#[derive(Debug, Default)]
struct Report {
    /// For each of [`Program::lines`], whether it was printed.
    found: Vec<bool>,
    /// The rule that the compliance suite checks, and all results.
    rule: String,
    rules: BTreeSet<String>,
    ending: Option<Ending>,
    faults: Vec<String>,
    timers: u64,
    sgis: u64,
    moves: u64,
}

impl Program {
    /// Fetches the package's file into the cache, or builds the program.
    fn fetch(&self) -> Result<PathBuf> {
        static NEWCOMER: Shared<Image> = Shared::new();
        let workspace = workspace::this()?;
        match self.source {
            Source::Debian { package, file } => {
                let folder = debian::fetch(workspace, package, package, &[file.to_owned()]);
                Ok(folder.or_absent(package)?.join(file))
            }
            Source::Newcomer => {
                let build = || Image::build(workspace, "newcomer", "newcomer");
                Ok(NEWCOMER.get(build)?.flat.clone())
            }
        }
    }

    fn is_firmware(&self) -> bool {
        self.source != Source::Newcomer
    }

    fn devices(&self) -> Vec<String> {
        self.is_firmware().then(|| DISK.to_owned()).into_iter().collect()
    }

    /// Runs the program on QEMU without the hypervisor. Guests of either have no ACPI tables.
    fn run_on_own_gic(
        &self,
        cpus: u8,
        file: &Path,
        name: &str,
        other: Option<&Path>,
    ) -> Result<Report> {
        let mut qemu = built::tools(VERSION)?.command(qemu::PROGRAM);
        qemu.args(["-M", "virt,gic-version=3,acpi=off", "-cpu", "neoverse-n1"]).args(SURROUNDINGS);
        qemu.args(["-m", &format!("{MEMORY}M"), "-smp", &cpus.to_string()]);
        qemu.args(self.devices().iter().flat_map(|device| ["-device", device]));
        qemu.arg(if self.is_firmware() { "-bios" } else { "-kernel" }).arg(file);
        self.run(qemu, &format!("{name} of QEMU's GIC"), other)
    }

    fn run(&self, mut qemu: Command, name: &str, other: Option<&Path>) -> Result<Report> {
        let disk = built::folder()?.join(name.replace([' ', '\'', ','], "-").to_lowercase());
        fs::create_dir_all(&disk)?;
        fs::write(disk.join(SCRIPT), self.script)?;
        if let Some(file) = other {
            fs::copy(file, disk.join(file.file_name().context("not a file")?))?;
        }
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
    fn judge_taken(&self, takes: Interrupts) -> Result<()> {
        let Self { timers, sgis, .. } = *self;
        let is_right = match takes {
            Interrupts::None => [timers, sgis] == [0; 2],
            Interrupts::Timer => timers > 0,
            Interrupts::TimerAndSgis(times) => [timers, sgis] == [times; 2],
        };
        ensure!(is_right, "the guest took {timers} timer interrupts and {sgis} SGIs");
        Ok(())
    }

    /// Reads a rule's number and name, its result, or both.
    fn result(&mut self, line: &str) {
        let line = line.trim();
        let is_rule = |(number, _): &(&str, &str)| number.parse::<u32>().is_ok();
        if let Some((number, rest)) = line.split_once(" : ").filter(is_rule) {
            self.rule = format!("{number}: {}", rest.split("  ").next().unwrap_or(rest));
        }
        if let Some((_, result)) = line.rsplit_once("Result:") {
            self.rules.insert(format!("{}: {}", self.rule, result.trim()));
        }
    }

    fn line(&mut self, line: &str, wanted: &[&str]) {
        match Fact::parse(line) {
            Some(Fact::Hypervisor(HypervisorFact::Ended { how, .. })) => self.ending = Some(how),
            Some(Fact::Hypervisor(HypervisorFact::Fault { fault, .. })) => {
                self.faults.push(fault.into_owned());
            }
            Some(Fact::Hypervisor(HypervisorFact::Count { reason, times, .. })) => match &*reason {
                "PPI taken" => self.timers = times,
                "SGI taken" => self.sgis = times,
                _ => {}
            },
            Some(Fact::Hypervisor(HypervisorFact::Moved { times, grown: 0 })) => self.moves = times,
            Some(_) => {}
            None => {
                self.result(line);
                for (found, wanted) in self.found.iter_mut().zip(wanted) {
                    *found |= line.contains(wanted);
                }
            }
        }
    }
}
