//! Starts, supervises and ends child processes.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, bail};

use crate::hang;

/// Returns a command in `directory` that has no standard input, because child processes must not
/// prompt the user.
pub fn command(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).stdin(Stdio::null());
    command
}

/// Variables by which this machine's settings, libraries or modules would reach a program that was
/// unpacked but not installed.
const SETTINGS: [&str; 7] = [
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "PYTHONHOME",
    "PYTHONPATH",
    "QEMU_MODULE_DIR",
    "VALGRIND_LIB",
    "VALGRIND_OPTS",
];

/// Returns a command like [`command`] for a program that was unpacked but not installed.
pub fn unpacked(program: &str, directory: &Path) -> Command {
    let mut command = command(program, directory);
    for name in SETTINGS {
        command.env_remove(name);
    }
    command
}

/// Returns a command for the cargo of the toolchain that runs this program.
pub fn cargo(directory: &Path) -> Command {
    command(&env::var("CARGO").unwrap_or_else(|_| "cargo".into()), directory)
}

/// Returns `true` if `program` is found and accepts `--version`.
pub fn exists(program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Programs that fail if a component cannot be had on this machine, because the network, the
/// package or the permission to install it is missing.
const FETCHERS: [&str; 6] = ["apt-cache", "apt-get", "cargo", "pip", "rustup", "sudo"];

/// Error from a program that was started and did not succeed.
#[derive(Debug)]
pub struct Unsuccessful {
    command: String,
    status: ExitStatus,
    stderr: String,
    /// The program failed because it could not fetch a component.
    pub is_fetch: bool,
}

impl Unsuccessful {
    /// Fails unless a program with this status has succeeded.
    fn check(command: &Command, status: ExitStatus, stderr: &[u8]) -> Result<()> {
        if status.success() {
            return Ok(());
        }
        let program = Path::new(command.get_program()).file_name().unwrap_or_default();
        let is_fetcher = FETCHERS.iter().any(|name| program == *name);
        let stderr = String::from_utf8_lossy(stderr).trim_end().to_owned();
        // A status without a code is a signal.
        let is_fetch = is_fetcher && status.code().is_some();
        Err(Self { command: shown(command), status, stderr, is_fetch }.into())
    }
}

impl Display for Unsuccessful {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ended with {}", self.command, self.status)?;
        if self.stderr.is_empty() { Ok(()) } else { write!(f, "\n{}", self.stderr) }
    }
}

impl std::error::Error for Unsuccessful {}

/// Runs `command` quietly and returns its standard output.
///
/// # Errors
/// [`Unsuccessful`] with the standard error of the program if it fails.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    Unsuccessful::check(command, output.status, &output.stderr)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` with inherited output.
///
/// # Errors
/// [`Unsuccessful`] if the program fails.
pub fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    Unsuccessful::check(command, status, b"")
}

/// Runs `command` and collects its output.
pub fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot start {}", shown(command)))
}

/// Runs `command`, passing each line of its standard output to `line` as it arrives.
///
/// The child inherits standard error. A child that exceeds `limit`, which is stated for an idle
/// machine, is killed and reported as an error, with the last lines that it printed.
pub fn watch(command: &mut Command, limit: Duration, line: impl FnMut(&str)) -> Result<ExitStatus> {
    let (start, limit) = (Instant::now(), hang::on_this_machine(limit));
    supervise(command, || limit.saturating_sub(start.elapsed()), line)
        .with_context(|| format!("{} (limit {} s)", shown(command), limit.as_secs()))
}

/// Runs `command` like [`watch`], but limits the time between two of its lines to `silence`.
pub fn watch_each(
    command: &mut Command,
    silence: Duration,
    line: impl FnMut(&str),
) -> Result<ExitStatus> {
    let silence = hang::on_this_machine(silence);
    supervise(command, || silence, line)
        .with_context(|| format!("{} (limit {} s per line)", shown(command), silence.as_secs()))
}

/// Number of output lines that an error shows if a program did not end.
const LAST_LINES: usize = 20;

/// Runs `command`. The child is killed if it neither prints a line nor ends within the time that
/// `left` returns. The error then shows its last lines.
fn supervise(
    command: &mut Command,
    left: impl Fn() -> Duration,
    mut line: impl FnMut(&str),
) -> Result<ExitStatus> {
    let mut child =
        command.stdout(Stdio::piped()).spawn().context("the program cannot be started")?;
    let lines = lines_of(&mut child);
    let mut last = VecDeque::with_capacity(LAST_LINES);
    loop {
        match lines.recv_timeout(left()) {
            Ok(text) => {
                line(&text);
                if last.len() == LAST_LINES {
                    last.pop_front();
                }
                last.push_back(text);
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(child.wait()?),
            Err(RecvTimeoutError::Timeout) => {
                child.kill()?;
                child.wait()?;
                bail!("the program did not end in time; {}", shown_output(&last));
            }
        }
    }
}

/// Formats the last lines of a program's output.
fn shown_output(last: &VecDeque<String>) -> String {
    if last.is_empty() {
        return "it printed nothing".into();
    }
    let lines = last.iter().map(|line| format!("\n    {}", line.trim_end()));
    format!("its last lines are:{}", lines.collect::<String>())
}

fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            for text in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                if sender.send(String::from_utf8_lossy(&text).into_owned()).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

/// Formats a command as a person would type it.
fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Returns the error of a script that hangs after it has printed this number of lines.
    fn hung(script: &str, lines: u32) -> String {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("{script}; exec sleep 1000")]);
        let seen = Cell::new(0);
        let left = || if seen.get() < lines { Duration::from_mins(1) } else { Duration::ZERO };
        let error = supervise(&mut shell, left, |_| seen.set(seen.get() + 1)).unwrap_err();
        format!("{error:#}")
    }

    #[test]
    fn a_timeout_shows_the_last_lines() {
        let error = hung("seq 100 130", 31);
        let shown: Vec<_> = error.lines().filter_map(|line| line.strip_prefix("    ")).collect();
        let expected: Vec<_> = (111..=130).map(|number: u32| number.to_string()).collect();
        assert_eq!(shown, expected, "{error}");
        assert!(hung(":", 0).ends_with("it printed nothing"));
    }
}
