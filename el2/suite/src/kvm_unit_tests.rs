//! Runs kvm-unit-tests (<https://gitlab.com/kvm-unit-tests>) as guests. The suite's option
//! `--guests DIR` names the folder of its arm64 programs, `arm/*.flat`.
//!
//! Most guests are moved while they run. The migration tests wait for a key, which the suite types
//! after some moves.

mod micro_bench;

use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use doorbell_harness::process;
use doorbell_harness::suite::{Absent, Case};

use crate::board::{Board, COUNTING, LIMIT};
use crate::built;
use crate::files::Files;
use crate::kvm::{Guest, Host};
use crate::machine::{GICV3, GICV4};
use crate::outcome::Outcome;

const OPTION: &str = "--guests";
/// Guest memory in MiB, which is an argument of the test `selftest-setup`.
const MEMORY: u32 = 256;
/// Interval between moves, in milliseconds.
const MOVE_EVERY: u32 = 20;
/// Time for some moves, before a key is typed.
const MIGRATION: Duration = Duration::from_millis(500);
/// The last line of a program that succeeded: its status, shifted by one bit (`isa-debug-exit`
/// and kvm-unit-tests' `chr_testdev_exit`).
const SUCCESS: &str = "EXIT: STATUS=1";

/// A program with its arguments, as in `arm/unittests.cfg`.
#[derive(Clone, Copy, Debug)]
struct Unit {
    name: &'static str,
    program: &'static str,
    arguments: &'static str,
    /// Numbers of vCPUs, and of CPUs that they share.
    machines: &'static [(u8, u8)],
    time: Time,
}

/// The virtual time of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Time {
    /// The host's time. The guest is moved.
    Host,
    /// Counted in instructions of [`INSTRUCTION`] nanoseconds, because the unit measures time. The
    /// guest is not moved.
    Counted,
    /// Likewise, in instructions of [`FINE_INSTRUCTION`] nanoseconds: the Linux host has a timer
    /// tick every 4 ms, which must be rare compared with the measured operations.
    Fine,
}

impl Time {
    /// Returns the arguments for QEMU.
    const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Host => &[],
            Self::Counted => COUNTED,
            Self::Fine => FINE,
        }
    }
}

/// The program whose tests must be skipped, because a guest has no performance monitors, and the
/// line that it then prints.
const PMU: &str = "pmu";
const SKIPPED: &str = "No PMU found, test skipped...";

const ONE: &[(u8, u8)] = &[(1, 1)];
const TWO: &[(u8, u8)] = &[(2, 2), (2, 1)];
/// Each vCPU has a CPU. The second vCPU of the micro-benchmark never waits: if the vCPUs shared a
/// CPU, each of its 65,536 SGIs would take two time slices.
const PAIR: &[(u8, u8)] = &[(2, 2)];
const ANY: &[(u8, u8)] = &[(1, 1), (2, 2), (4, 4), (8, 2)];
const SEVERAL: &[(u8, u8)] = &[(2, 2), (4, 4), (8, 2)];
/// The tests that send LPIs to several CPUs need at least four.
const FOUR: &[(u8, u8)] = &[(4, 4), (8, 2)];
/// Nanoseconds of virtual time per instruction. With a lower value, programs that wait for a period
/// would execute too many instructions.
const INSTRUCTION: f64 = 64.0;
const COUNTED: &[&str] = &["-accel", "tcg,thread=single", "-icount", "shift=6,sleep=off"];
/// Likewise, for [`Time::Fine`]. A timer tick of the Linux host takes a million instructions.
const FINE_INSTRUCTION: f64 = 4.0;
const FINE: &[&str] = &["-accel", "tcg,thread=single", "-icount", "shift=2,sleep=off"];
/// Environment that enables tests that a hypervisor with known errata would fail (`lib/errata.h`).
const ENVIRONMENT: &str = "ERRATA_FORCE=y\n";

const fn unit(
    name: &'static str,
    program: &'static str,
    arguments: &'static str,
    machines: &'static [(u8, u8)],
) -> Unit {
    Unit { name, program, arguments, machines, time: Time::Host }
}

const UNITS: &[Unit] = &[
    unit("selftest-setup", "selftest", "setup smp=2 mem=256", TWO),
    unit("selftest-vectors-kernel", "selftest", "vectors-kernel", ONE),
    unit("selftest-vectors-user", "selftest", "vectors-user", ONE),
    unit("selftest-smp", "selftest", "smp", ANY),
    unit("gicv3-ipi", "gic", "ipi", SEVERAL),
    unit("gicv3-active", "gic", "active", ANY),
    unit("its-introspection", "gic", "its-introspection", ANY),
    unit("its-trigger", "gic", "its-trigger", FOUR),
    unit("its-migration", "gic", "its-migration", FOUR),
    unit("its-pending-migration", "gic", "its-pending-migration", FOUR),
    unit("its-migrate-unmapped-collection", "gic", "its-migrate-unmapped-collection", FOUR),
    unit("psci", "psci", "", SEVERAL),
    unit("cache", "cache", "", ONE),
    unit("fpu-context", "fpu", "", TWO),
    unit("debug-bp", "debug", "bp", ONE),
    unit("debug-bp-migration", "debug", "bp-migration", ONE),
    unit("debug-wp", "debug", "wp", ONE),
    unit("debug-wp-migration", "debug", "wp-migration", ONE),
    unit("debug-sstep", "debug", "ss", ONE),
    unit("debug-sstep-migration", "debug", "ss-migration", ONE),
    unit("pmu-cycle-counter", PMU, "cycle-counter 0", ONE),
    unit("pmu-event-introspection", PMU, "pmu-event-introspection", ONE),
    Unit { time: Time::Counted, ..unit("timer", "timer", "", ONE) },
    Unit { time: Time::Counted, ..unit(micro_bench::NAME, micro_bench::NAME, "", PAIR) },
];

/// Removes `--guests DIR` from the arguments of a suite, and returns the folder.
pub(crate) fn folder_in(arguments: &mut Vec<OsString>) -> Option<PathBuf> {
    let at = arguments.iter().position(|argument| argument == OPTION)?;
    let mut option = arguments.drain(at..arguments.len().min(at + 2));
    option.nth(1).map(PathBuf::from)
}

/// Lists the cases: each unit on its machines, or a single case that is skipped if no folder is
/// given.
pub(crate) fn cases(folder: Option<&Path>) -> Vec<Case> {
    let Some(folder) = folder else {
        let absent = || Err(Absent::new("`-- --guests DIR` names the folder of arm/*.flat").into());
        return vec![built::case("kvm-unit-tests", LIMIT, absent)];
    };
    let units = UNITS.iter().flat_map(|unit| unit.machines.iter().map(move |it| (unit, *it)));
    // Hardware then follows the commands of the guest's ITS.
    let also_direct = |(unit, machine): (&'static Unit, _)| {
        let ways = [false, true].into_iter().take(1 + usize::from(unit.name.starts_with("its-")));
        ways.map(move |direct| (unit, machine, direct))
    };
    let case = |(unit, (vcpus, cpus), direct): (&'static Unit, _, _)| {
        let folder = folder.to_path_buf();
        let how = if direct { ", injected directly" } else { "" };
        let name = format!("kvm-unit-tests: {} on {vcpus} vCPUs of {cpus} CPUs{how}", unit.name);
        let machine = if direct { GICV4 } else { GICV3 };
        built::case(name.clone(), unit.limit(), move || {
            let board = Board { machine, vcpus, cpus, direct, ..Board::plain(COUNTING, MEMORY)? };
            unit.judge(&name, &folder, board)
        })
    };
    units.flat_map(also_direct).map(case).chain([comparison(folder)]).collect()
}

impl Unit {
    fn judge(&self, name: &str, folder: &Path, board: Board<'_>) -> Result<()> {
        let program = self.program_in(folder)?;
        let mut qemu = self.command(&program, board)?;
        let (keyboard, mut typist) = io::pipe()?;
        let (mut report, mut typed) = (Report::new(), Ok(()));
        process::watch(qemu.stdin(keyboard), self.limit(), |line| {
            if report.line(line) {
                thread::sleep(MIGRATION);
                typed = typist.write_all(b"\n");
            }
        })?;
        typed?;
        eprintln!("{name}: {}", report.summary());
        report.judge(self)
    }

    /// Returns the time limit of a run.
    fn limit(&self) -> Duration {
        if self.name == micro_bench::NAME { micro_bench::LIMIT } else { LIMIT }
    }

    /// Returns the path of the program.
    fn program_in(&self, folder: &Path) -> Result<PathBuf> {
        let program = folder.join(self.program).with_extension("flat");
        if !program.exists() {
            return Err(Absent::new(format!("there is no {}", program.display())).into());
        }
        Ok(program)
    }

    fn command(&self, program: &Path, board: Board<'_>) -> Result<Command> {
        let move_every = (self.time == Time::Host).then_some(MOVE_EVERY);
        let board = Board { move_every, ..board };
        let environment = built::folder()?.join("kvm-unit-tests");
        fs::write(&environment, ENVIRONMENT)?;
        let initrd = Some(environment.as_path());
        let mut qemu =
            board.command(&[Files { kernel: program, initrd, append: self.arguments }])?;
        qemu.args(self.time.arguments());
        Ok(qemu)
    }
}

/// Returns the case that compares the micro-benchmark's costs with those on KVM.
fn comparison(folder: &Path) -> Case {
    let name = format!("kvm-unit-tests: {} is cheaper than on KVM", micro_bench::NAME);
    let folder = folder.to_owned();
    built::case(name.clone(), 2 * micro_bench::LIMIT, move || compare(&name, &folder))
}

/// Runs the micro-benchmark on this hypervisor and on KVM, and compares the costs.
fn compare(name: &str, folder: &Path) -> Result<()> {
    const VCPUS: u8 = 2;
    let unit = Unit { time: Time::Fine, ..unit(micro_bench::NAME, micro_bench::NAME, "", &[]) };
    let program = unit.program_in(folder)?;
    let costs = || micro_bench::Costs::counted_by(FINE_INSTRUCTION);
    let (mut here, mut there) = (costs(), costs());
    let board = Board { vcpus: VCPUS, cpus: VCPUS, ..Board::plain(COUNTING, MEMORY)? };
    let mut qemu = unit.command(&program, board)?;
    process::watch(&mut qemu, unit.limit(), |line| here.line(line))?;
    let guest = Guest { name: micro_bench::NAME, image: &program };
    Host::stable(VCPUS).run(guest, unit.time.arguments(), |line| there.line(line))?;
    eprintln!("{name}:\nthe hypervisor: {here}\nLinux's KVM:    {there}");
    here.judge_beside(&there)
}

/// The output of a program and of the hypervisor.
#[derive(Debug)]
struct Report {
    passed: usize,
    failed: Vec<String>,
    is_skipped: bool,
    is_success: bool,
    /// Costs that the micro-benchmark measured.
    costs: micro_bench::Costs,
    outcome: Outcome,
}

impl Report {
    fn new() -> Self {
        Self {
            passed: 0,
            failed: Vec::new(),
            is_skipped: false,
            is_success: false,
            costs: micro_bench::Costs::counted_by(INSTRUCTION),
            outcome: Outcome::default(),
        }
    }

    /// Processes a line of output. Returns `true` if the program waits for a key.
    fn line(&mut self, line: &str) -> bool {
        let line = line.trim_end();
        self.outcome.line(line);
        self.passed += usize::from(line.starts_with("PASS: "));
        if line.starts_with("FAIL: ") || line.contains("assert failed") {
            self.failed.push(line.into());
        }
        self.is_skipped |= line == SKIPPED;
        self.is_success |= line == SUCCESS;
        self.costs.line(line);
        line.contains("press a key") || line.ends_with("(quiet)")
    }

    /// Returns a summary of the results.
    fn summary(&self) -> String {
        let Self { passed, failed, costs, outcome: Outcome { moves, .. }, .. } = self;
        let skipped = if self.is_skipped { "skipped, " } else { "" };
        format!("{skipped}{passed} passed, {} failed, {moves} moves {costs}", failed.len())
    }

    /// Checks that the program tested something, and that nothing failed.
    fn judge(&self, unit: &Unit) -> Result<()> {
        ensure!(self.failed.is_empty(), "{}", self.failed.join("; "));
        self.outcome.judge(0)?;
        if unit.program == PMU {
            ensure!(self.is_skipped && self.passed == 0, "the guest found performance monitors");
            return Ok(());
        }
        ensure!(self.is_success, "the program did not print `{SUCCESS}`");
        if unit.name == micro_bench::NAME {
            return self.costs.judge();
        }
        ensure!(self.passed > 0, "the program tested nothing");
        self.outcome.judge(u64::from(unit.time == Time::Host))
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::outcome::tests::{MOVED, OFF, needs_each};

    const GOOD: [&str; 4] = ["PASS: gicv3: ipi: self: IPI", SUCCESS, OFF, MOVED];

    fn judged(unit: &str, lines: &[&str]) -> Result<()> {
        let mut report = Report::new();
        for line in lines {
            report.line(line);
        }
        let unit = UNITS.iter().find(|it| it.name == unit).context("no unit has this name")?;
        report.judge(unit)
    }

    #[test]
    fn any_deviation_from_a_good_gicv3_ipi_run_fails() {
        needs_each(&GOOD, |lines| judged("gicv3-ipi", lines));
        for bad in ["FAIL: gicv3: ipi: self: IPI", "lib/arm/psci.c:77: assert failed: node >= 0"] {
            assert!(judged("gicv3-ipi", &[&GOOD[..], &[bad]].concat()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_pmu_test_that_is_not_skipped_fails() {
        judged("pmu-cycle-counter", &[SKIPPED, OFF]).unwrap();
        for lines in [&GOOD[..], &[SKIPPED, GOOD[0], OFF], &[SKIPPED]] {
            assert!(judged("pmu-cycle-counter", lines).is_err(), "{lines:?}");
        }
    }

    #[test]
    fn a_micro_bench_run_must_measure_every_operation() {
        let row = |name: &&str| format!("{name}  100.0   10.0");
        let rows: Vec<_> = micro_bench::OPERATIONS.iter().map(row).collect();
        let of = |rows: &[String]| {
            let rows = rows.iter().map(String::as_str).chain([SUCCESS, OFF]);
            judged(micro_bench::NAME, &rows.collect::<Vec<_>>())
        };
        of(&rows).unwrap();
        assert!(of(&rows[1..]).is_err());
    }

    #[test]
    fn the_option_is_removed_from_the_arguments() {
        let arguments = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let mut given = arguments(&["suite", "--guests", "/kut/arm", "timer"]);
        assert_eq!(folder_in(&mut given), Some("/kut/arm".into()));
        assert_eq!(given, arguments(&["suite", "timer"]));
        for mut other in [arguments(&["suite", "timer"]), arguments(&["suite", "--guests"])] {
            assert_eq!(folder_in(&mut other), None);
        }
    }
}
