//! Runs Hermit, another project's unikernel, as a guest. It drives the GICv3 with an old version of
//! `arm-gic`, and uses the physical timer.
//!
//! Hermit sends itself an SGI for each task switch, and counts the interrupts that it takes. When
//! the program in `el2/foreign/hermit` ends, Hermit prints its counters. They must equal the
//! hypervisor's, although the guest is moved.

mod image;

use anyhow::{Context, Result, ensure};
use doorbell_harness::{process, suite};

use crate::board::{LIMIT, MOVES};
use crate::controller::Controller;
use crate::foreign::{self, Case, Kernel};
use crate::outcome::Outcome;

static KERNEL: Kernel = Kernel {
    name: "Hermit",
    image: image::flat,
    // The program's boot loader passes 56 MiB to Hermit.
    memory: 64,
    device: None,
    limit: LIMIT,
    ends_after: None,
    stays_alone: false,
    judge,
};
/// Line that the program prints when each of its four tasks has slept 200 times.
const SLEPT: &str = "guest: slept 800";
/// Minimum number of timer interrupts. One interrupt can wake several tasks.
const TIMER: u64 = 200;
/// Minimum number of SGIs: each task yields ten times after each sleep.
const SGIS: u64 = 8_000;
/// End of the only permitted fault: this version of `arm-gic` writes the registers of all possible
/// SPIs, regardless of `GICD_TYPER`.
const FAULT: &str = "no such interrupt (SPI 288)";

/// Lists the ordinary case. Hermit 0.11 uses only the first CPU of an Arm machine.
pub(crate) fn cases() -> Vec<suite::Case> {
    foreign::cases(&KERNEL, &[(Controller::Its, 1, 1)])
}

/// Lists the case that takes longer.
pub(crate) fn long_cases() -> Vec<suite::Case> {
    foreign::cases(&KERNEL, &[(Controller::Its, 4, 2)])
}

fn judge(case: Case) -> Result<()> {
    let mut report = Report::default();
    process::watch(&mut case.command()?, KERNEL.limit, |line| report.line(line))
        .with_context(|| format!("{report:?}"))?;
    eprintln!("{}: {report:?}", case.name());
    report.judge(case.vcpus)
}

/// The output of Hermit, its program and the hypervisor.
#[derive(Debug, Default)]
struct Report {
    /// Number of CPUs that Hermit found.
    cpus: Option<u8>,
    has_slept: bool,
    /// Interrupts that Hermit counted.
    timer: u64,
    sgis: u64,
    outcome: Outcome,
}

impl Report {
    fn line(&mut self, line: &str) {
        self.outcome.line(line);
        let line = line.trim_end();
        self.has_slept |= line == SLEPT;
        let number = |before: &str| line.split_once(before).map(|(_, number)| number);
        if let Some(cpus) = number("[INFO] Found ").and_then(|rest| rest.strip_suffix(" cpus!")) {
            self.cpus = cpus.parse().ok();
        }
        for (name, count) in [("[Timer]: ", &mut self.timer), ("[Reschedule]: ", &mut self.sgis)] {
            if let Some(Ok(times)) = number(name).map(str::parse) {
                *count = times;
            }
        }
    }

    fn judge(&self, vcpus: u8) -> Result<()> {
        let Self { cpus, has_slept, timer, sgis, outcome } = self;
        ensure!(*cpus == Some(vcpus), "Hermit found {cpus:?} CPUs");
        ensure!(*has_slept, "the program did not print `{SLEPT}`");
        outcome.judge(MOVES)?;
        let is_known = outcome.faults.iter().all(|fault| fault.ends_with(FAULT));
        ensure!(is_known, "{:?}", outcome.faults);
        for (kind, guest, least) in [("PPI", *timer, TIMER), ("SGI", *sgis, SGIS)] {
            let hypervisor = outcome.taken(kind);
            ensure!(
                guest == hypervisor,
                "Hermit took {guest} {kind}s, the hypervisor counted {hypervisor}"
            );
            ensure!(guest >= least, "{guest} {kind}s, not {least}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::tests::{MOVED, OFF, needs_each};

    const GOOD: [&str; 8] = [
        "[0][INFO] Found 2 cpus!",
        SLEPT,
        "[0][INFO] [0][Reschedule]: 8808",
        "[0][INFO] [0][Timer]: 358",
        OFF,
        MOVED,
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
        needs_each(&GOOD, judged);
        judged(&[&GOOD[..], &[KNOWN]].concat()).unwrap();
        for bad in ["[0][INFO] [0][Timer]: 357", "[0][INFO] [0][Reschedule]: 8809", OTHER] {
            assert!(judged(&[&GOOD[..], &[bad]].concat()).is_err(), "{bad}");
        }
    }
}
