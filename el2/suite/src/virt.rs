//! Runs programs for QEMU's `virt`, unmodified, as guests: Debian's U-Boot and EDK2, and
//! `el2/newcomer`. Each also runs on QEMU's own GIC, and must reach the same verdict there.
//!
//! Both firmwares enumerate PCI, read a file from an NVMe disk, and read flash. U-Boot polls its
//! devices and the counter; EDK2 also keeps variables in flash, and needs the timer's interrupt for
//! its console and its countdowns. The newcomer's program counts its timer's interrupts and its
//! SGIs, which the hypervisor must have counted too.
//!
//! The suite's option `--guests DIR` names a folder with descriptions of other programs. If it has
//! `Bsa.efi`, Arm's compliance suite for the Base System Architecture
//! (<https://github.com/ARM-software/bsa-acs>) runs on EDK2.

mod program;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use doorbell_harness::qemu::Version;
use doorbell_harness::suite::{Absent, Case};

use self::program::Program;
use crate::board::{self, Board, LIMIT};
use crate::built;
use crate::files::{self, Files, Start};
use crate::output::Output;

/// Interval between moves, in milliseconds.
const MOVE_EVERY: u32 = 50;
const VERSION: Version = Version::Stable;
/// Arm's compliance suite.
const COMPLIANCE: &str = "Bsa.efi";
/// Its rules on the PMU, which a guest does not have, and the guest's results.
const WITHOUT_PMU: [(&str, &str); 3] = [("9: ", "FAIL"), ("10: ", "SKIPPED"), ("54: ", "FAIL")];
/// Its rules on wake-up by the timers, which it skips if WFI completes earlier. A move ends a WFI.
const ENDED_WAITS: [(&str, &str); 2] = [("501: ", "SKIPPED"), ("502: ", "SKIPPED")];
/// The fewest results that the compliance suite prints.
const FEWEST_RULES: usize = 30;

const U_BOOT: (&str, &str) = ("u-boot.guest", include_str!("virt/u-boot.guest"));
const EDK2: (&str, &str) = ("edk2.guest", include_str!("virt/edk2.guest"));
const BSA: (&str, &str) = ("bsa.guest", include_str!("virt/bsa.guest"));
const NEWCOMER: (&str, &str) = ("newcomer.guest", include_str!("virt/newcomer.guest"));
/// Releases of Debian whose firmware runs.
const NEWEST: &str = "sid";
const OLDER: [&str; 2] = ["bookworm", "trixie"];
/// End of the names of descriptions.
const EXTENSION: &str = "guest";

/// Numbers of vCPUs and of CPUs, and whether the guest is moved.
type On = ((u8, u8), bool);

/// A machine with a program.
#[derive(Clone, Debug)]
struct ProgramCase {
    program: Program,
    vcpus: u8,
    cpus: u8,
    is_moved: bool,
}

/// Lists the ordinary cases.
pub(crate) fn cases() -> Vec<Case> {
    // The hypervisor traps WFI only if the vCPUs share a CPU.
    let small = [((1, 1), true), ((2, 1), true)];
    let newcomer = built_in(NEWCOMER, Path::new(""), &small);
    firmware(NEWEST, &[((4, 4), true)]).chain(newcomer).collect()
}

/// Lists the cases that take longer.
pub(crate) fn long_cases() -> Vec<Case> {
    let older = |release| firmware(release, &[((4, 4), true), ((1, 1), false)]);
    OLDER.into_iter().flat_map(older).chain(firmware(NEWEST, &[((1, 1), false)])).collect()
}

/// Lists the cases of the firmware of a release of Debian.
fn firmware(release: &'static str, machines: &[On]) -> impl Iterator<Item = Case> {
    [U_BOOT, EDK2].into_iter().flat_map(move |(name, text)| {
        let file = Path::new(name);
        listed(file, Program::parse(file, text).map(|it| it.of_release(release)), machines)
    })
}

/// Lists the cases of Arm's compliance suite, which are skipped if the folder does not have it.
pub(crate) fn compliance_cases(folder: Option<&Path>) -> Vec<Case> {
    let Some(folder) = folder.filter(|folder| folder.join(COMPLIANCE).exists()) else {
        let absent = || Absent::new(format!("`-- --guests DIR` names the folder of {COMPLIANCE}"));
        return vec![built::case(COMPLIANCE, LIMIT, move || Err(absent().into()))];
    };
    built_in(BSA, folder, &[((1, 1), true), ((2, 2), false), ((4, 4), true), ((8, 2), true)])
}

/// Lists the cases of the programs that a folder describes, each unmoved and moved.
pub(crate) fn described_cases(folder: Option<&Path>) -> Vec<Case> {
    let files = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
    let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
    files.retain(|file| file.extension().is_some_and(|it| it == EXTENSION));
    files.sort_unstable();
    let of_file = |file: &PathBuf| {
        let program = Program::read(file).and_then(|program| {
            let path = file.display();
            ensure!(!program.machines.is_empty(), "{path}: a line `vcpus` states no machine");
            Ok(program)
        });
        let machines = program.iter().flat_map(|program| &program.machines);
        let machines: Vec<_> = machines.flat_map(|on| [(*on, false), (*on, true)]).collect();
        listed(file, program, &machines)
    };
    files.iter().flat_map(of_file).collect()
}

/// Lists the cases of a description of ours. Files that it names are in `folder`.
fn built_in((name, text): (&str, &str), folder: &Path, machines: &[On]) -> Vec<Case> {
    let file = folder.join(name);
    listed(&file, Program::parse(&file, text), machines)
}

/// Lists a program's cases. An error is a case that fails.
fn listed(file: &Path, program: Result<Program>, machines: &[On]) -> Vec<Case> {
    let program = match program {
        Ok(program) => program,
        Err(error) => {
            return vec![built::case(file.display().to_string(), LIMIT, || Err(error))];
        }
    };
    let case = |&((vcpus, cpus), is_moved): &On| {
        let case = ProgramCase { program: program.clone(), vcpus, cpus, is_moved };
        built::case(case.name(), 2 * program.limit, move || case.judge())
    };
    machines.iter().map(case).collect()
}

impl ProgramCase {
    fn name(&self) -> String {
        let Self { program, vcpus, cpus, is_moved } = self;
        let moved = if *is_moved { ", moved" } else { "" };
        format!("{} on {vcpus} vCPUs of {cpus} CPUs{moved}", program.name)
    }

    /// Returns the path of a file of this case, which ends with `end`.
    fn file(&self, end: &str) -> Result<PathBuf> {
        Ok(built::folder()?.join(built::slug(&self.name()) + end))
    }

    fn judge(&self) -> Result<()> {
        let Self { ref program, vcpus, cpus, is_moved } = *self;
        let file = program.fetch()?;
        let (start, kernel) = if program.is_firmware {
            (Start::Flash, file.clone())
        } else {
            files::placed(file.clone(), self.file(".flat")?)?
        };
        let devices: Vec<_> = program.devices.iter().map(String::as_str).collect();
        let board = Board {
            vcpus,
            cpus,
            devices: &devices,
            start,
            move_every: is_moved.then_some(MOVE_EVERY),
            stats: true,
            ..Board::plain(VERSION, program.memory)
        };
        let files = Files::alone(&kernel, &program.append);
        let guest = self.run(&mut board.command(&[files])?, "")?;
        guest.judge(u64::from(is_moved))?;
        guest.judge_faults()?;
        let counts = ["PPI", "SGI"].map(|kind| guest.taken(kind).unwrap_or(0));
        let mut expected = program.takes.iter().flatten().zip(counts);
        let is_right = expected.all(|(expected, count)| expected.contains(&count));
        ensure!(is_right, "the guest took {} timer interrupts and {} SGIs", counts[0], counts[1]);
        let own = self.run_on_own_gic(&file)?;
        for line in &program.lines {
            let verdicts = (guest.contains(line), own.contains(line));
            ensure!(verdicts == (true, true), "`{line}` by the guest and by QEMU: {verdicts:?}");
        }
        let (same, of_qemu) = (program.same_of(&guest), program.same_of(&own));
        ensure!(same == of_qemu, "the guest printed {same:#?}, not {of_qemu:#?}");
        let ended_waits: &[_] = if is_moved { &ENDED_WAITS } else { &[] };
        let (guest, own) = (rules(&guest), rules(&own));
        let exceptions = || WITHOUT_PMU.iter().chain(ended_waits);
        let is_expected = |rule: &&String| {
            exceptions().any(|(number, result)| rule.starts_with(number) && rule.ends_with(result))
        };
        let is_excepted = |rule: &&String| exceptions().any(|(number, _)| rule.starts_with(number));
        let of_guest = guest.difference(&own).filter(|rule| !is_expected(rule));
        let of_qemu = own.difference(&guest).filter(|rule| !is_excepted(rule));
        let differ: Vec<_> = of_guest.chain(of_qemu).collect();
        let has_rules = !program.has_rules || own.len() >= FEWEST_RULES;
        ensure!(has_rules, "QEMU's machine has only these results: {own:#?}");
        ensure!(differ.is_empty(), "the guest's results differ from QEMU's: {differ:#?}");
        Ok(())
    }

    /// Runs the program on QEMU without the hypervisor. Guests of either have no ACPI tables.
    fn run_on_own_gic(&self, file: &Path) -> Result<Output> {
        let Self { program, vcpus, .. } = self;
        let mut qemu = board::without_hypervisor(VERSION, *vcpus, program.memory)?;
        qemu.args(["-M", "acpi=off"]);
        qemu.args(program.devices.iter().flat_map(|device| ["-device", device]));
        qemu.arg(if program.is_firmware { "-bios" } else { "-kernel" }).arg(file);
        if !program.append.is_empty() {
            qemu.args(["-append", &program.append]);
        }
        self.run(qemu.args(&program.own), "-of-qemu's-gic")
    }

    /// Runs the program with its disk, whose folder's name ends with `end`.
    fn run(&self, qemu: &mut Command, end: &str) -> Result<Output> {
        let program = &self.program;
        let disk = self.file(end)?;
        program.write_disk(&disk)?;
        let drive = format!("if=none,id=disk,format=raw,file=fat:rw:{}", disk.display());
        let mut dialog = program.dialog.iter().peekable();
        Output::typed(qemu.args(["-drive", &drive]), program.limit, &program.keys, |line, _| {
            let next = dialog.next_if(|(words, _)| line.contains(words));
            next.map_or(String::new(), |(_, answer)| answer.clone())
        })
    }
}

/// Returns the results of the rules that the compliance suite checked. A line has a rule's number
/// and name, its result, or both.
fn rules(output: &Output) -> BTreeSet<String> {
    let (mut rule, mut rules) = (String::new(), BTreeSet::new());
    for line in output.lines.iter().map(|line| line.trim()) {
        let is_rule = |(number, _): &(&str, &str)| number.parse::<u32>().is_ok();
        if let Some((number, rest)) = line.split_once(" : ").filter(is_rule) {
            rule = format!("{number}: {}", rest.split("  ").next().unwrap_or(rest));
        }
        if let Some((_, result)) = line.rsplit_once("Result:") {
            rules.insert(format!("{rule}: {}", result.trim()));
        }
    }
    rules
}
