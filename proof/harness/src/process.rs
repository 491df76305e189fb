//! Starts, supervises and ends child processes.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Context, Result, bail, ensure};

/// Returns a command in `directory` that has no standard input, because child processes must not
/// prompt the user.
pub fn command(program: &str, directory: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(directory).stdin(Stdio::null());
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

/// Runs `command` quietly and returns its standard output. An error includes its standard error.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    ensure!(
        output.status.success(),
        "{} ended with {}\n{}",
        shown(command),
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` with inherited output, and returns an error if it fails.
pub fn must(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    ensure!(status.success(), "{} ended with {status}", shown(command));
    Ok(())
}

/// Runs `command` and collects its output.
pub fn output(command: &mut Command) -> Result<Output> {
    command.output().with_context(|| format!("cannot start {}", shown(command)))
}

/// Runs `command` for up to `limit`, passing each line of its standard output to `line` as it
/// arrives.
///
/// The child inherits standard error. A child that exceeds the limit is killed and reported as an
/// error, with the last lines that it printed.
pub fn watch(command: &mut Command, limit: Duration, line: impl FnMut(&str)) -> Result<ExitStatus> {
    let start = Instant::now();
    supervise(command, || limit.saturating_sub(start.elapsed()), line)
        .with_context(|| format!("{} (limit {} s)", shown(command), limit.as_secs()))
}

/// Runs `command` like [`watch`], but limits the time between two of its lines to `silence`.
pub fn watch_each(
    command: &mut Command,
    silence: Duration,
    line: impl FnMut(&str),
) -> Result<ExitStatus> {
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
