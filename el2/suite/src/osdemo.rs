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

use std::time::Duration;

use anyhow::{Result, ensure};
use doorbell_facts::{Fact, HypervisorFact};

use self::typist::{SGIS, Typist};
use crate::board::{LIMIT, MOVES};
use crate::controller::Controller::Its;
use crate::foreign::{Kernel, KernelCase};
use crate::output::Output;

/// Time limit of a run, which must suffice on a busy machine.
const TIME: Duration = LIMIT.saturating_mul(2);
/// A guest with several vCPUs is moved. A single vCPU waits only for the UART's interrupts, and is
/// not moved, because a move would wake it.
pub(crate) const KERNEL: Kernel = Kernel {
    name: "osdemo",
    image: image::flat,
    memory: 64,
    devices: &[],
    limit: TIME,
    ends_after: Some(120),
    stays_alone: true,
    machines: &[(Its, 1, 1), (Its, 4, 4)],
    long_machines: &[(Its, 2, 2), (Its, 8, 2)],
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

fn judge(case: KernelCase) -> Result<()> {
    for _ in 0..RACES {
        let run = Run::of(case)?;
        if !run.has_raced(case.vcpus) {
            return run.judge(case);
        }
        match unhandled(&run.output) {
            Some(sgi) => eprintln!("{}: osdemo had no handler for SGI {sgi}", case.name()),
            None => eprintln!("{}: osdemo slept over a character", case.name()),
        }
    }
    Run::of(case)?.judge(case)
}

/// The output of osdemo and the hypervisor.
#[derive(Debug)]
struct Run {
    output: Output,
    /// Number of typed characters.
    typed: u64,
}

impl Run {
    fn of(case: KernelCase) -> Result<Self> {
        let (mut typist, mut typed) = (Typist::new(case.vcpus), 0);
        let output = Output::typed(&mut case.command()?, TIME, "", |line, output| {
            let commands = typist.answer(line, taken(output).len());
            let keys: String = commands.iter().flat_map(|command| [command, "\r"]).collect();
            typed += keys.len() as u64;
            keys
        })?;
        let count = |kind| output.taken(kind).unwrap_or(0);
        eprintln!(
            "{}: {} SGIs taken, {typed} characters typed; the hypervisor counted {} SGIs and {} \
             SPIs; {} moves",
            case.name(),
            taken(&output).len(),
            count("SGI"),
            count("SPI"),
            output.moves()
        );
        Ok(Self { output, typed })
    }

    /// Returns `true` if osdemo slept over a character, or found no handler for an SGI that one of
    /// its CPUs was still to take. Otherwise, a CPU has received the SGI twice.
    fn has_raced(&self, vcpus: u8) -> bool {
        // At the time limit, a typed character waited whose interrupt the guest had cleared.
        let slept = Fact::from(HypervisorFact::TimeOver { silent_input: true });
        self.output.must_state(slept).is_ok()
            || unhandled(&self.output).is_some_and(|unhandled| {
                let taken = taken(&self.output);
                let took = taken.iter().filter(|(_, sgi)| *sgi == unhandled).count();
                took + 1 < usize::from(vcpus)
            })
    }

    fn judge(&self, case: KernelCase) -> Result<()> {
        let Self { output, typed } = self;
        output.judge(if case.is_moved() { MOVES } else { 0 })?;
        output.judge_faults()?;
        let mut taken = taken(output);
        taken.sort_unstable();
        let expected: Vec<_> =
            (1..case.vcpus).flat_map(|cpu| (0..SGIS).map(move |sgi| (cpu, sgi))).collect();
        ensure!(taken == expected, "the CPUs took {taken:?}");
        let (taken, sgis) = (taken.len() as u64, output.taken("SGI").unwrap_or(0));
        ensure!(sgis == taken, "osdemo took {taken} SGIs, and the hypervisor counted {sgis}");
        if case.is_moved() {
            return Ok(());
        }
        let answers = output.lines.iter().filter(|line| line.contains("PSCI version")).count();
        ensure!(
            answers as u64 == typist::QUESTIONS,
            "{answers} answers, not {}",
            typist::QUESTIONS
        );
        // The shell sleeps until the first character of each command. It can read the others before
        // their interrupt.
        let (of_uart, possible) = (output.taken("SPI").unwrap_or(0), typist::QUESTIONS..=*typed);
        ensure!(possible.contains(&of_uart), "{of_uart} interrupts of the UART, not {possible:?}");
        Ok(())
    }
}

/// Returns the SGIs that the CPUs' handlers printed: the CPU and the SGI. A log line is contiguous,
/// but may follow an unfinished line of the shell.
fn taken(output: &Output) -> Vec<(u8, u8)> {
    let taken = |line: &String| {
        let (_, rest) = line.split_once("[INFO] Secondary CPU ")?;
        let (cpu, sgi) = rest.split_once(" IRQ handler SGI ")?;
        Some((cpu.parse().ok()?, sgi.parse().ok()?))
    };
    output.lines.iter().filter_map(taken).collect()
}

/// Returns the SGI for which osdemo found no handler, and panicked.
fn unhandled(output: &Output) -> Option<u8> {
    output.after(NO_HANDLER).ok()?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::{MOVED, OFF, judges, output, taken as count};

    const FAULT: &str = r#"{"hypervisor":{"fault":{"guest":0,"fault":"no such interrupt"}}}"#;

    fn judged(vcpus: u8, output: Output) -> Result<()> {
        let run = Run { output, typed: 105 };
        run.judge(KernelCase { kernel: &KERNEL, controller: Its, vcpus, cpus: 1 })
    }

    #[test]
    fn each_sgi_must_be_taken_once() {
        let sgi = |sgi| format!("$ [INFO] Secondary CPU 1 IRQ handler SGI {sgi}\r");
        let lines: Vec<_> =
            (0..SGIS).map(sgi).chain([count("SGI", 16), MOVED.into(), OFF.into()]).collect();
        let bad = [sgi(3), FAULT.into(), count("SGI", 17)];
        judges(&lines, &bad, |output| judged(2, output.clone()));
    }

    #[test]
    fn only_silent_input_or_missed_sgis_are_races() {
        for silent_input in [false, true] {
            let line = Fact::from(HypervisorFact::TimeOver { silent_input }).to_string();
            assert_eq!(Run { output: output(&[line]), typed: 0 }.has_raced(1), silent_input);
        }
        for (cpus, has_raced) in [(0, true), (1, true), (2, true), (3, false)] {
            let lines =
                (1..=cpus).map(|cpu| format!("[INFO] Secondary CPU {cpu} IRQ handler SGI 2"));
            let mut run = Run { output: output(&lines.collect::<Vec<_>>()), typed: 0 };
            assert!(!run.has_raced(4));
            run.output.line("Unexpected IRQ SGI 2 with no handler\r");
            assert_eq!(run.has_raced(4), has_raced, "{cpus}");
        }
    }

    #[test]
    fn each_console_command_must_raise_an_spi() {
        let answers: Vec<_> = (0..typist::QUESTIONS).map(|_| "PSCI version 1.1".into()).collect();
        let of = |spis| output(&[&answers[..], &[count("SPI", spis), OFF.into()]].concat());
        judged(1, of(20)).and(judged(1, of(105))).unwrap();
        for spis in [0, 19, 106] {
            assert!(judged(1, of(spis)).is_err(), "{spis} interrupts");
        }
        let mut few = of(20);
        few.lines.remove(0);
        assert!(judged(1, few).is_err());
    }
}
