//! Runs Hermit, another project's unikernel, as a guest. It drives the GICv3 with an old version of
//! `arm-gic`, and uses the physical timer.
//!
//! Hermit sends itself an SGI for each task switch, and counts the interrupts that it takes. When
//! the program in `el2/foreign/hermit` ends, Hermit prints its counters. They must equal the
//! hypervisor's, although the guest is moved.

mod image;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_facts::{Ending, Fact, HypervisorFact};
use doorbell_harness::process;
use doorbell_harness::qemu::Version;

use crate::board::{Board, LIMIT, MOVES, Record};
use crate::built::TestCase;
use crate::files::Files;

/// Guest memory in MiB. The program's boot loader passes 56 MiB of it to Hermit.
const MEMORY: u32 = 64;
/// Interval between moves, in milliseconds.
const MOVE_EVERY: u32 = 50;
/// Line that the program prints when each of its four tasks has slept 200 times.
const SLEPT: &str = "guest: slept 800";
/// Minimum number of timer interrupts. One interrupt can wake several tasks.
const TIMER: u64 = 200;
/// Minimum number of SGIs: each task yields ten times after each sleep.
const SGIS: u64 = 8_000;
/// End of the only permitted fault: this version of `arm-gic` writes the registers of all possible
/// SPIs, regardless of `GICD_TYPER`.
const FAULT: &str = "no such interrupt (SPI 288)";

/// A machine that repeatedly saves and restores its only guest. Hermit 0.11 uses only one CPU of an
/// Arm machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    vcpus: u8,
    cpus: u8,
}

impl TestCase for Case {
    const ORDINARY: &'static [Self] = &[Self { vcpus: 1, cpus: 1 }];
    const LONG: &'static [Self] = &[Self { vcpus: 4, cpus: 2 }];

    fn name(self) -> String {
        let Self { vcpus, cpus } = self;
        format!("Hermit on the first of {vcpus} vCPUs of {cpus} CPUs, moved")
    }

    fn limit(self) -> Duration {
        LIMIT
    }

    fn judge(self) -> Result<()> {
        let (mut qemu, mut report) = (self.command()?, Report::default());
        process::watch(&mut qemu, LIMIT, |line| report.line(line))
            .with_context(|| format!("{report:?}"))?;
        let Report { timer, sgis, moves, .. } = &report;
        eprintln!("{}: {timer:?} timer interrupts, {sgis:?} SGIs, {moves} moves", self.name());
        report.judge(self.vcpus)
    }
}

impl Case {
    fn command(self) -> Result<Command> {
        let board = Board {
            vcpus: self.vcpus,
            cpus: self.cpus,
            move_every: Some(MOVE_EVERY),
            record: Record { stats: true, ..Record::default() },
            ..Board::plain(Version::Stable, MEMORY)?
        };
        board.command(&[Files { kernel: image::flat()?, initrd: None, append: "" }])
    }
}

/// Interrupt counts of one kind, from Hermit and from the hypervisor.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    guest: u64,
    hypervisor: u64,
}

impl Counted {
    fn judge(&self, what: &str, least: u64) -> Result<()> {
        let Self { guest, hypervisor } = self;
        ensure!(
            guest == hypervisor,
            "Hermit took {guest} {what}, the hypervisor counted {hypervisor}"
        );
        ensure!(*guest >= least, "{guest} {what}, not {least}");
        Ok(())
    }
}

/// The output of Hermit, its program and the hypervisor.
#[derive(Debug, Default)]
struct Report {
    /// Number of CPUs that Hermit found.
    cpus: Option<u8>,
    has_slept: bool,
    timer: Counted,
    sgis: Counted,
    faults: Vec<String>,
    moves: u64,
    ending: Option<Ending>,
}

impl Report {
    fn line(&mut self, line: &str) {
        match Fact::parse(line) {
            Some(Fact::Hypervisor(HypervisorFact::Count { reason, times, .. })) => match &*reason {
                "PPI taken" => self.timer.hypervisor = times,
                "SGI taken" => self.sgis.hypervisor = times,
                _ => {}
            },
            Some(Fact::Hypervisor(HypervisorFact::Fault { fault, .. })) => {
                self.faults.push(fault.into());
            }
            Some(Fact::Hypervisor(HypervisorFact::Moved { times, grown: 0 })) => self.moves = times,
            Some(Fact::Hypervisor(HypervisorFact::Ended { how, .. })) => self.ending = Some(how),
            _ => {}
        }
        let line = line.trim_end();
        self.has_slept |= line == SLEPT;
        let number = |before: &str| line.split_once(before).map(|(_, number)| number);
        if let Some(cpus) = number("[INFO] Found ").and_then(|rest| rest.strip_suffix(" cpus!")) {
            self.cpus = cpus.parse().ok();
        }
        for (name, counted) in [("[Timer]: ", &mut self.timer), ("[Reschedule]: ", &mut self.sgis)]
        {
            if let Some(Ok(times)) = number(name).map(str::parse) {
                counted.guest = times;
            }
        }
    }

    fn judge(&self, vcpus: u8) -> Result<()> {
        ensure!(self.cpus == Some(vcpus), "Hermit found {:?} CPUs", self.cpus);
        ensure!(self.has_slept, "the program did not print `{SLEPT}`");
        ensure!(self.ending == Some(Ending::Off), "the machine ended by {:?}", self.ending);
        ensure!(self.faults.iter().all(|fault| fault.ends_with(FAULT)), "{:?}", self.faults);
        ensure!(self.moves >= MOVES, "{} moves, not {MOVES}", self.moves);
        self.timer.judge("timer interrupts", TIMER)?;
        self.sgis.judge("SGIs", SGIS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 8] = [
        "[0][INFO] Found 2 cpus!",
        SLEPT,
        "[0][INFO] [0][Reschedule]: 8808",
        "[0][INFO] [0][Timer]: 358",
        r#"{"hypervisor":{"ended":{"guest":0,"how":"off"}}}"#,
        r#"{"hypervisor":{"moved":{"times":48,"grown":0}}}"#,
        r#"{"hypervisor":{"count":{"guest":0,"reason":"PPI taken","times":358,"longest":0}}}"#,
        r#"{"hypervisor":{"count":{"guest":0,"reason":"SGI taken","times":8808,"longest":0}}}"#,
    ];
    /// A fault that this version of Hermit causes, and one that it must not cause.
    const KNOWN: &str =
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"no such interrupt (SPI 288)"}}}"#;
    const OTHER: &str =
        r#"{"hypervisor":{"fault":{"guest":0,"fault":"GICD_IROUTER40: no such PE"}}}"#;

    fn judged(lines: &[&str]) -> Result<()> {
        let mut report = Report::default();
        for line in lines {
            report.line(line);
        }
        report.judge(2)
    }

    #[test]
    fn hermits_counters_must_equal_the_hypervisors() {
        judged(&GOOD).unwrap();
        judged(&[&GOOD[..], &[KNOWN]].concat()).unwrap();
        for missing in 0..GOOD.len() {
            let mut lines = GOOD.to_vec();
            lines.remove(missing);
            assert!(judged(&lines).is_err(), "without line {missing}");
        }
        for bad in ["[0][INFO] [0][Timer]: 357", "[0][INFO] [0][Reschedule]: 8809", OTHER] {
            assert!(judged(&[&GOOD[..], &[bad]].concat()).is_err(), "{bad}");
        }
    }
}
