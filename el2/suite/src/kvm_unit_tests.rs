//! Runs kvm-unit-tests (<https://gitlab.com/kvm-unit-tests>) as guests. The suite's option
//! `--guests DIR` names the folder of its arm64 programs, `arm/*.flat`.
//!
//! Most guests are moved while they run. The migration tests wait for a key, which the suite types
//! after some moves.

mod micro_bench;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use doorbell_harness::suite::{Absent, Case};

use crate::board::{Board, COUNTING, GICV3, GICV4, LIMIT};
use crate::built;
use crate::files::Files;
use crate::output::Output;

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
    /// Arguments with which QEMU counts virtual time in instructions, for a unit that measures
    /// time. Without them, the guest is moved.
    counted: &'static [&'static str],
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
/// Environment that enables tests that a hypervisor with known errata would fail (`lib/errata.h`).
const ENVIRONMENT: &str = "ERRATA_FORCE=y\n";

const fn unit(
    name: &'static str,
    program: &'static str,
    arguments: &'static str,
    machines: &'static [(u8, u8)],
) -> Unit {
    Unit { name, program, arguments, machines, counted: &[] }
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
    Unit { counted: COUNTED, ..unit("timer", "timer", "", ONE) },
    Unit { counted: COUNTED, ..unit(micro_bench::NAME, micro_bench::NAME, "", PAIR) },
];

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
            let board = Board { machine, vcpus, cpus, direct, ..Board::plain(COUNTING, MEMORY) };
            unit.judge(&name, &folder, board)
        })
    };
    units.flat_map(also_direct).map(case).collect()
}

impl Unit {
    fn judge(&self, name: &str, folder: &Path, board: Board<'_>) -> Result<()> {
        let program = self.program_in(folder)?;
        let mut qemu = self.command(&program, board)?;
        let output = Output::typed(&mut qemu, self.limit(), "", |line, _| {
            if !line.contains("press a key") && !line.ends_with("(quiet)") {
                return String::new();
            }
            thread::sleep(MIGRATION);
            "\n".into()
        })?;
        eprintln!("{name}: {} passed, {} moves", passed(&output), output.moves());
        self.judge_output(&output)
    }

    /// Checks that the program tested something, and that nothing failed.
    fn judge_output(&self, output: &Output) -> Result<()> {
        let is_failed =
            |line: &&String| line.starts_with("FAIL: ") || line.contains("assert failed");
        let failed: Vec<_> = output.lines.iter().filter(is_failed).collect();
        ensure!(failed.is_empty(), "{failed:#?}");
        output.judge(0)?;
        let (passed, prints) = (passed(output), |text| output.lines.iter().any(|it| it == text));
        if self.program == PMU {
            ensure!(prints(SKIPPED) && passed == 0, "the guest found performance monitors");
            return Ok(());
        }
        ensure!(prints(SUCCESS), "the program did not print `{SUCCESS}`");
        if self.name == micro_bench::NAME {
            eprintln!("{}", micro_bench::costs(output, INSTRUCTION)?);
            return Ok(());
        }
        ensure!(passed > 0, "the program tested nothing");
        output.judge(u64::from(self.counted.is_empty()))
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
        let move_every = self.counted.is_empty().then_some(MOVE_EVERY);
        let board = Board { move_every, ..board };
        let environment = built::folder()?.join("kvm-unit-tests");
        fs::write(&environment, ENVIRONMENT)?;
        let initrd = Some(environment.as_path());
        let files = Files { initrd, ..Files::alone(program, self.arguments) };
        let mut qemu = board.command(&[files])?;
        qemu.args(self.counted);
        Ok(qemu)
    }
}

/// Returns the number of tests that passed.
fn passed(output: &Output) -> usize {
    output.lines.iter().filter(|line| line.starts_with("PASS: ")).count()
}
