//! Runs slices in processes, and reports their progress.

use crate::outcome::Outcome;
use crate::part::Part;
use crate::verdicts::{Code, Earlier, Verdict, Verdicts};
use anyhow::{Context as _, Result, bail, ensure};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
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

/// Runs slices until each part has had its messages, counting those in the verdict file.
pub(crate) fn run(amount: Amount<'_>, file: Option<&Path>) -> Result<ExitCode> {
    let mut verdicts = Verdicts::open(file)?;
    let mut failures = 0;
    for part in amount.parts {
        if let Some(reason) = part.absent() {
            println!("{} is skipped: {reason}", part.name());
            continue;
        }
        failures += run_part(*part, amount.of(*part), &mut verdicts)?;
    }
    Ok(if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_part(part: Part, wanted: u64, verdicts: &mut Verdicts) -> Result<u64> {
    let code = Code::of(part);
    let Earlier { messages: mut done, mut seed, mut failures } = verdicts.earlier(part, &code);
    if failures > 0 {
        println!("{}: {failures} earlier slices of the same code failed", part.name());
    }
    let size = part.slice().min(wanted.div_ceil(SLICES)).max(1);
    let (start, earlier) = (Instant::now(), done);
    while done < wanted {
        seed += 1;
        let messages = size.min(wanted - done);
        let slice = Instant::now();
        let outcome = run_slice(part, seed, messages);
        let verdict =
            Verdict::new(&code, part, seed, messages, slice.elapsed(), outcome.as_ref().ok());
        match &outcome {
            Ok(outcome) => done += outcome.messages,
            Err(error) => {
                failures += 1;
                // The slice must not be repeated forever.
                done += messages;
                println!("{} with seed {seed} failed: {error:#}", part.name());
                println!("replay it: {}", replay_command(part, seed, messages));
            }
        }
        verdicts.add(&verdict)?;
        let seconds = start.elapsed().as_secs_f64().max(0.001);
        let rate = (done - earlier) / (start.elapsed().as_secs().max(1));
        let dimensions = outcome.map(|outcome| outcome.dimensions).unwrap_or_default();
        println!(
            "{:8} seed {seed}: {done} of {wanted} messages after {seconds:.1} s, {rate}/s \
             {dimensions}",
            part.name()
        );
    }
    Ok(failures)
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
