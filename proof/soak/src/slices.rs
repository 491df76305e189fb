//! Runs slices in processes, and reports their progress.

use crate::outcome::Outcome;
use crate::part::Part;
use crate::verdicts::{Code, Earlier, Slice, Verdicts};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{env, panic, process, thread};

/// Number of messages and the parts that share it.
#[derive(Clone, Copy)]
pub(crate) struct Amount<'a> {
    pub(crate) messages: u64,
    pub(crate) parts: &'a [Part],
}

/// Time after which a slice counts as hung.
const LIMIT: Duration = Duration::from_mins(10);
/// Interval at which the end of a slice is polled.
const INTERVAL: Duration = Duration::from_millis(20);
/// Smallest number of slices of a part, so that a short run has several seeds.
const SLICES: u64 = 8;

impl Amount<'_> {
    /// Returns a part's number of messages.
    fn of(self, part: Part) -> u64 {
        let shares: u64 = self.parts.iter().map(|part| part.share()).sum();
        self.messages / shares * part.share() + self.messages % shares * part.share() / shares
    }
}

/// Runs a slice in this process, and prints its outcome. If a thread panics, prints the panic's
/// message instead, and ends the process.
pub(crate) fn replay(part: Part, seed: u64, messages: u64) -> Result<()> {
    let report = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        report(panic);
        println!("{panic}");
        process::abort();
    }));
    println!("{}", serde_json::to_string(&part.run(seed, messages))?);
    Ok(())
}

/// Runs slices until each part has had its messages, `lanes` at a time. Slices in the verdict file
/// count.
pub(crate) fn run(amount: Amount<'_>, lanes: usize, file: Option<&Path>) -> Result<ExitCode> {
    let mut verdicts = Verdicts::open(file)?;
    let mut failed = Vec::new();
    let mut failures = 0;
    for part in amount.parts {
        if let Some(reason) = part.absent() {
            println!("{} is skipped: {reason}", part.name());
            continue;
        }
        let run = Mutex::new(PartRun::new(*part, amount.of(*part), &mut verdicts));
        thread::scope(|scope| {
            let lanes = (0..lanes).map(|_| scope.spawn(|| run_lane(&run))).collect::<Vec<_>>();
            lanes.into_iter().try_for_each(|lane| lane.join().unwrap())
        })?;
        let run = run.into_inner().unwrap();
        failures += run.failures;
        failed.extend(run.failed);
    }
    if !failed.is_empty() {
        println!("failed slices:\n{}", failed.join("\n"));
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs slices of a part, while other lanes do the same.
fn run_lane(run: &Mutex<PartRun<'_>>) -> Result<()> {
    loop {
        let Some((seed, messages)) = run.lock().unwrap().next() else { return Ok(()) };
        let part = run.lock().unwrap().part;
        let start = Instant::now();
        let outcome = run_slice(part, seed, messages);
        run.lock().unwrap().end(seed, messages, start.elapsed(), outcome)?;
    }
}

/// The progress of a part.
struct PartRun<'a> {
    part: Part,
    code: Code,
    verdicts: &'a mut Verdicts,
    start: Instant,
    /// Number of messages that the part must send, and those of earlier runs.
    wanted: u64,
    earlier: u64,
    /// Number of messages of all slices that have begun, and of those that have ended.
    begun: u64,
    done: u64,
    /// The last seed.
    seed: u64,
    failures: u64,
    /// The commands that replay the slices of this run that failed.
    failed: Vec<String>,
}

impl<'a> PartRun<'a> {
    fn new(part: Part, wanted: u64, verdicts: &'a mut Verdicts) -> Self {
        let code = Code::of(part);
        let Earlier { messages: earlier, seed, failures } = verdicts.earlier(part, &code);
        if failures > 0 {
            println!("{}: {failures} earlier slices of the same code failed", part.name());
        }
        let (start, begun, done) = (Instant::now(), earlier, earlier);
        let failed = Vec::new();
        Self { part, code, verdicts, start, wanted, earlier, begun, done, seed, failures, failed }
    }

    /// Begins a slice, and returns its seed and its number of messages.
    fn next(&mut self) -> Option<(u64, u64)> {
        let left = self.wanted.checked_sub(self.begun).filter(|left| *left > 0)?;
        let size = self.part.slice().min(self.wanted.div_ceil(SLICES)).max(1);
        let messages = size.min(left);
        self.begun += messages;
        self.seed += 1;
        Some((self.seed, messages))
    }

    /// Records and prints the end of a slice. A slice that failed is not repeated.
    fn end(
        &mut self,
        seed: u64,
        messages: u64,
        elapsed: Duration,
        outcome: Result<Outcome>,
    ) -> Result<()> {
        let Self { part, wanted, .. } = *self;
        let name = part.name();
        let ended = outcome.as_ref().ok();
        let slice = Slice { part, seed, requested: messages, elapsed };
        self.verdicts.add(&self.code, &slice, ended)?;
        self.done += ended.map_or(messages, |outcome| outcome.messages);
        if let Err(error) = &outcome {
            self.failures += 1;
            println!("{name} with seed {seed} failed: {error:#}");
            self.failed.push(replay_command(part, seed, messages));
        }
        let seconds = self.start.elapsed().as_secs();
        let (done, rate) = (self.done, (self.done - self.earlier) / seconds.max(1));
        let dimensions = outcome.map(|outcome| outcome.dimensions).unwrap_or_default();
        println!(
            "{name:8} seed {seed}: {done} of {wanted} messages after {seconds} s, {rate}/s \
             {dimensions}"
        );
        Ok(())
    }
}

fn replay_command(part: Part, seed: u64, messages: u64) -> String {
    format!(
        "cargo run --release -p doorbell-soak -- --part {} --seed {seed} --messages {messages}",
        part.name()
    )
}

/// Runs a slice in a separate process.
fn run_slice(part: Part, seed: u64, messages: u64) -> Result<Outcome> {
    let mut command = Command::new(env::current_exe()?);
    command.args(["--part", part.name(), "--seed", &seed.to_string()]);
    let mut child =
        command.args(["--messages", &messages.to_string()]).stdout(Stdio::piped()).spawn()?;
    wait(&mut child)?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let printed = String::from_utf8_lossy(&output.stdout);
        bail!("ended with {}: {}", output.status, printed.trim().replace('\n', " "));
    }
    let outcome: Outcome =
        serde_json::from_slice(&output.stdout).context("the slice did not report its outcome")?;
    ensure!(outcome.messages != 0, "the slice sent no message");
    Ok(outcome)
}

/// Waits for a slice, and kills it if it hangs. Its output is short, so it fits the pipe.
fn wait(child: &mut Child) -> Result<()> {
    let start = Instant::now();
    while child.try_wait()?.is_none() {
        if start.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            bail!("did not end within {} s", LIMIT.as_secs());
        }
        thread::sleep(INTERVAL);
    }
    Ok(())
}
