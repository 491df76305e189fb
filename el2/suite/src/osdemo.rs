//! Runs osdemo, another project's kernel, as a guest. osdemo is a shell built on Google's
//! bare-metal crates: `arm-gic` drives the GICv3, `aarch64-rt` starts CPUs, and the UART raises an
//! interrupt for each typed character.
//!
//! The suite types the commands. `start_cpu` starts a CPU, which enables its SGIs, waits for one
//! and turns itself off without ending the SGI, so each start takes one SGI. `sgi` sends an SGI to
//! all CPUs; for a CPU that is off, the SGI stays pending until the next start. Each started CPU
//! must take each SGI exactly once.

mod image;
mod typist;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use doorbell_harness::{process, suite};

use self::typist::{SGIS, Typist};
use crate::board::{LIMIT, MOVES};
use crate::controller::Controller::Its;
use crate::foreign::{self, Case, Kernel};
use crate::outcome::Outcome;

/// Time limit of a run, which must suffice on a busy machine.
const TIME: Duration = LIMIT.saturating_mul(2);
/// A guest with several vCPUs is moved. A single vCPU waits only for the UART's interrupts, and is
/// not moved, because a move would wake it.
static KERNEL: Kernel = Kernel {
    name: "osdemo",
    image: image::flat,
    memory: 64,
    device: None,
    limit: TIME,
    ends_after: Some(120),
    stays_alone: true,
    judge,
};
/// Maximum number of runs that may end by a race of osdemo's own:
/// - A CPU that a move wakes removes its handlers before it turns itself off, but leaves interrupts
///   enabled, so an SGI that arrives in between finds no handler.
/// - The shell finds no character, enables interrupts, and then sleeps. The handler only clears the
///   UART's interrupt, so a character that arrives in between is never read. The UART's FIFO is
///   off, so no further character can arrive.
const RACES: usize = 4;

/// osdemo's message when it finds no handler for an SGI, whose number follows.
const NO_HANDLER: &str = "Unexpected IRQ SGI ";

/// Lists the ordinary cases.
pub(crate) fn cases() -> Vec<suite::Case> {
    foreign::cases(&KERNEL, &[(Its, 1, 1), (Its, 4, 4)])
}

/// Lists the cases that take longer.
pub(crate) fn long_cases() -> Vec<suite::Case> {
    foreign::cases(&KERNEL, &[(Its, 2, 2), (Its, 8, 2)])
}

fn judge(case: Case) -> Result<()> {
    for _ in 0..RACES {
        let report = run(case)?;
        if !report.has_raced(case.vcpus) {
            return report.judge(case);
        }
        match report.unhandled {
            Some(sgi) => eprintln!("{}: osdemo had no handler for SGI {sgi}", case.name()),
            None => eprintln!("{}: osdemo slept over a character", case.name()),
        }
    }
    run(case)?.judge(case)
}

fn run(case: Case) -> Result<Report> {
    let mut qemu = case.command()?;
    let (keyboard, mut keys) = io::pipe()?;
    let (mut report, mut typist) = (Report::default(), Typist::new(case.vcpus));
    let mut typed = Ok(());
    process::watch(qemu.stdin(keyboard), TIME, |line| {
        report.line(line);
        for command in typist.answer(line, &report.taken) {
            typed = keys.write_all(command.as_bytes()).and(keys.write_all(b"\r"));
            report.typed += command.len() as u64 + 1;
        }
    })
    .with_context(|| format!("{report:?}"))?;
    typed?;
    eprintln!("{}: {report}", case.name());
    Ok(report)
}

/// The output of osdemo and the hypervisor.
#[derive(Debug, Default)]
struct Report {
    /// SGIs that a CPU's handler printed: the CPU and the SGI.
    taken: Vec<(u8, u8)>,
    /// Number of answers to the command `cpus`.
    answers: u64,
    /// Number of typed characters.
    typed: u64,
    /// SGI for which osdemo found no handler, and panicked.
    unhandled: Option<u8>,
    outcome: Outcome,
}

impl Report {
    fn line(&mut self, line: &str) {
        self.outcome.line(line);
        self.answers += u64::from(line.contains("PSCI version"));
        self.taken.extend(taken(line));
        let panic = line.split_once(NO_HANDLER).and_then(|(_, rest)| rest.split(' ').next());
        self.unhandled = self.unhandled.or_else(|| panic?.trim_end().parse().ok());
    }

    /// Returns `true` if osdemo slept over a character, or found no handler for an SGI that one of
    /// its CPUs was still to take. Otherwise, a CPU has received the SGI twice.
    fn has_raced(&self, vcpus: u8) -> bool {
        self.outcome.silent_input
            || self.unhandled.is_some_and(|unhandled| {
                let took = self.taken.iter().filter(|(_, sgi)| *sgi == unhandled).count();
                took + 1 < usize::from(vcpus)
            })
    }

    fn judge(&self, case: Case) -> Result<()> {
        self.outcome.judge(if case.is_moved() { MOVES } else { 0 })?;
        self.outcome.judge_faults()?;
        let mut taken = self.taken.clone();
        taken.sort_unstable();
        let expected: Vec<_> =
            (1..case.vcpus).flat_map(|cpu| (0..SGIS).map(move |sgi| (cpu, sgi))).collect();
        ensure!(taken == expected, "the CPUs took {taken:?}");
        let taken = taken.len() as u64;
        let sgis = self.outcome.taken("SGI");
        ensure!(sgis == taken, "osdemo took {taken} SGIs, and the hypervisor counted {sgis}");
        if case.is_moved() {
            return Ok(());
        }
        let (Self { answers, typed, .. }, of_uart) = (self, self.outcome.taken("SPI"));
        ensure!(*answers == typist::QUESTIONS, "{answers} answers, not {}", typist::QUESTIONS);
        // The shell sleeps until the first character of each command. It can read the others before
        // their interrupt.
        let possible = typist::QUESTIONS..=*typed;
        ensure!(possible.contains(&of_uart), "{of_uart} interrupts of the UART, not {possible:?}");
        Ok(())
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { taken, typed, outcome, .. } = self;
        let (taken, moves) = (taken.len(), outcome.moves);
        let [sgis, of_uart] = ["SGI", "SPI"].map(|kind| outcome.taken(kind));
        write!(
            f,
            "{taken} SGIs taken, {typed} characters typed; the hypervisor counted {sgis} SGIs and \
             {of_uart} SPIs; {moves} moves"
        )
    }
}

/// Parses the log line of a CPU's handler. A log line is contiguous, but may follow an unfinished
/// line of the shell.
fn taken(line: &str) -> Option<(u8, u8)> {
    let (_, rest) = line.trim_end().split_once("[INFO] Secondary CPU ")?;
    let (cpu, sgi) = rest.split_once(" IRQ handler SGI ")?;
    Some((cpu.parse().ok()?, sgi.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use doorbell_facts::{Fact, HypervisorFact};

    use super::*;
    use crate::outcome::tests::{MOVED, OFF, needs_each, taken as count};

    const FAULT: &str = r#"{"hypervisor":{"fault":{"guest":0,"fault":"no such interrupt"}}}"#;

    fn judged(vcpus: u8, typed: u64, lines: &[String]) -> Result<()> {
        let mut report = Report { typed, ..Report::default() };
        for line in lines {
            report.line(line);
        }
        report.judge(Case { kernel: &KERNEL, controller: Its, vcpus, cpus: 1 })
    }

    #[test]
    fn each_sgi_must_be_taken_once() {
        let sgi = |sgi| format!("$ [INFO] Secondary CPU 1 IRQ handler SGI {sgi}\r");
        let lines: Vec<_> =
            (0..SGIS).map(sgi).chain([count("SGI", 16), MOVED.into(), OFF.into()]).collect();
        needs_each(&lines, |lines| judged(2, 1, lines));
        for more in [sgi(3), FAULT.into(), count("SGI", 17)] {
            assert!(judged(2, 1, &[&lines[..], &[more]].concat()).is_err());
        }
    }

    #[test]
    fn an_unhandled_sgi_is_a_race_unless_every_cpu_took_it() {
        for (cpus, has_raced) in [(0, true), (1, true), (2, true), (3, false)] {
            let mut report = Report::default();
            for cpu in 1..=cpus {
                report.line(&format!("[INFO] Secondary CPU {cpu} IRQ handler SGI 2\r"));
            }
            assert!(!report.has_raced(4));
            report.line("Unexpected IRQ SGI 2 with no handler\r");
            assert_eq!(report.has_raced(4), has_raced, "{cpus}");
        }
    }

    #[test]
    fn a_timeout_is_a_race_only_if_the_input_is_silent() {
        for silent_input in [false, true] {
            let mut report = Report::default();
            report.line(&Fact::from(HypervisorFact::TimeOver { silent_input }).to_string());
            assert_eq!(report.has_raced(1), silent_input);
        }
    }

    #[test]
    fn each_console_command_must_raise_an_spi() {
        let answers: Vec<_> = (0..typist::QUESTIONS).map(|_| "PSCI version 1.1".into()).collect();
        let of = |spis| [&answers[..], &[count("SPI", spis), OFF.into()]].concat();
        judged(1, 105, &of(20)).unwrap();
        judged(1, 105, &of(105)).unwrap();
        for spis in [0, 19, 106] {
            assert!(judged(1, 105, &of(spis)).is_err(), "{spis} interrupts");
        }
        assert!(judged(1, 105, &of(20)[1..]).is_err());
    }
}
