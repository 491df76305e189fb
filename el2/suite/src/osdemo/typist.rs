//! The commands that are typed at osdemo's shell.

use std::thread;
use std::time::Duration;

/// Number of SGIs.
pub(super) const SGIS: u8 = 16;
/// Maximum number of rounds. Each round starts all CPUs, and each start takes one SGI of a CPU; a
/// CPU that was moved while it waited turns itself off without having taken one.
const MOST_ROUNDS: u8 = 4 * SGIS;
/// Time in which a CPU turns itself off after its last line.
const TURN_OFF: Duration = Duration::from_millis(50);

/// Answers osdemo's lines with commands.
#[derive(Debug, Default)]
pub(super) struct Typist {
    vcpus: u8,
    /// Number of rounds that have begun.
    rounds: u8,
    /// Number of CPUs that wait in this round, and that have finished waiting.
    waiting: u8,
    finished: u8,
    /// CPU that the shell started last.
    started: Option<u8>,
    is_done: bool,
}

impl Typist {
    pub(super) fn new(vcpus: u8) -> Self {
        Self { vcpus, ..Self::default() }
    }

    /// Returns the commands to type once osdemo has printed `line`. `taken` is the number of SGIs
    /// taken so far.
    pub(super) fn answer(&mut self, line: &str, taken: usize) -> Vec<String> {
        let others = self.vcpus - 1;
        let cpu = line.split_once("CPU ").and_then(|(_, rest)| rest.split_once(": ID "));
        self.started = cpu.and_then(|(cpu, _)| cpu.parse().ok()).or(self.started);
        if line.contains("[INFO] Configuring IRQs") {
            return self.round(taken);
        }
        // The CPU has printed its last line, but is still on.
        if line.contains(" already ") {
            return self.started.map(start).into_iter().collect();
        }
        if line.contains("[INFO] Waiting for interrupt") {
            self.waiting += 1;
            let sgi = self.rounds - 1;
            let is_due = self.waiting == others && sgi < SGIS;
            return is_due.then(|| format!("sgi {sgi}")).into_iter().collect();
        }
        if line.contains("[INFO] Finished waiting") {
            self.finished += 1;
            if self.finished == others && !self.is_done {
                thread::sleep(TURN_OFF);
                return self.round(taken);
            }
        }
        Vec::new()
    }

    /// Begins a round, or powers off the machine if all SGIs have been taken.
    fn round(&mut self, taken: usize) -> Vec<String> {
        let others = self.vcpus - 1;
        let all = usize::from(SGIS) * usize::from(others);
        if self.rounds >= SGIS && taken >= all || self.rounds == MOST_ROUNDS {
            self.is_done = true;
            return vec!["exit".into()];
        }
        self.rounds += 1;
        (self.waiting, self.finished) = (0, 0);
        (1..self.vcpus).map(start).collect()
    }
}

fn start(cpu: u8) -> String {
    format!("start_cpu {cpu} 0")
}
