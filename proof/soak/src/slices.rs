//! Runs slices in processes, and reports their progress.

use crate::chaos;
use anyhow::{Result, ensure};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, panic, process, thread};

/// Time after which a slice counts as hung.
const LIMIT: Duration = Duration::from_mins(10);
/// Number of messages of a slice in a long run.
const SLICE: u64 = 400_000;
/// Smallest number of slices, so that a short run has several seeds.
const SLICES: u64 = 8;

/// Runs a slice in this process, and prints its outcome. If a thread panics, or the slice hangs,
/// prints the panic's message instead, and ends the process.
pub(crate) fn replay(seed: u64, messages: u64) {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        println!("{panic}");
        process::abort();
    }));
    thread::spawn(|| {
        thread::sleep(LIMIT);
        panic!("the slice did not end within {} s", LIMIT.as_secs());
    });
    println!("{}", chaos::run(seed, messages));
}

/// Runs slices until `messages` have been sent, `lanes` at a time.
pub(crate) fn run(messages: u64, lanes: usize) -> ExitCode {
    let run = Mutex::new(Run { wanted: messages, ..Run::default() });
    thread::scope(|scope| {
        let lanes = (0..lanes).map(|_| scope.spawn(|| run_lane(&run))).collect::<Vec<_>>();
        for lane in lanes {
            lane.join().unwrap();
        }
    });
    let failed = run.into_inner().unwrap().failed;
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("failed slices:\n{}", failed.join("\n"));
    ExitCode::FAILURE
}

/// Runs slices while other lanes do the same.
fn run_lane(run: &Mutex<Run>) {
    let start = Instant::now();
    loop {
        let Some((seed, messages)) = run.lock().unwrap().next() else { return };
        let outcome = run_slice(seed, messages);
        run.lock().unwrap().end(seed, messages, start.elapsed(), outcome);
    }
}

/// The progress of a run.
#[derive(Default)]
struct Run {
    wanted: u64,
    /// Number of messages of all slices that have begun, and of those that have ended.
    begun: u64,
    done: u64,
    /// The last seed.
    seed: u64,
    /// The commands that replay the slices that failed.
    failed: Vec<String>,
}

impl Run {
    /// Begins a slice, and returns its seed and its number of messages.
    fn next(&mut self) -> Option<(u64, u64)> {
        let left = self.wanted.checked_sub(self.begun).filter(|left| *left > 0)?;
        let messages = SLICE.min(self.wanted.div_ceil(SLICES)).max(1).min(left);
        self.begun += messages;
        self.seed += 1;
        Some((self.seed, messages))
    }

    /// Prints the end of a slice. A slice that failed is not repeated.
    fn end(&mut self, seed: u64, messages: u64, elapsed: Duration, outcome: Result<String>) {
        match outcome {
            Ok(outcome) => {
                self.done += messages;
                let (done, wanted, seconds) = (self.done, self.wanted, elapsed.as_secs());
                println!("seed {seed}: {done} of {wanted} messages after {seconds} s, {outcome}");
            }
            Err(error) => {
                println!("seed {seed} failed: {error:#}");
                self.failed.push(format!(
                    "cargo run --release -p doorbell-soak -- --seed {seed} --messages {messages}"
                ));
            }
        }
    }
}

/// Runs a slice in a separate process, and returns what it has printed.
fn run_slice(seed: u64, messages: u64) -> Result<String> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--seed", &seed.to_string(), "--messages", &messages.to_string()]);
    let output = command.stderr(Stdio::inherit()).output()?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().replace('\n', " ");
    ensure!(output.status.success(), "ended with {}: {printed}", output.status);
    ensure!(!printed.is_empty(), "the slice did not report its outcome");
    Ok(printed)
}
