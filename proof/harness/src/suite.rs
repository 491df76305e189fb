//! A suite's cases. Cases are selected by name and run on all CPUs. Each case has a hang guard and
//! its own line in the report.

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Error, Result};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::process::Unsuccessful;
use crate::{hang, parallel};

/// Environment variable that makes suites also run their long cases.
pub const LONG: &str = "DOORBELL_LONG";

/// Returns `true` if long cases are requested, which take hours or need an idle machine.
pub fn is_long() -> bool {
    env::var_os(LONG).is_some()
}

/// A named check.
#[derive(Debug)]
pub struct Case {
    trial: Trial,
}

impl Case {
    /// Creates a case that may fetch packages and build programs.
    pub fn of(name: impl Into<String>, run: impl FnOnce() -> Result<()> + Send + 'static) -> Self {
        Self::new(name, if is_long() { hang::LONG } else { hang::CASE }, run)
    }

    /// Creates a case that fails if `run` fails, or exceeds a `limit` for an idle machine. If
    /// `run`'s error is caused by an [`Absent`], the case is skipped instead. Prints the case's
    /// duration to standard error.
    pub fn new(
        name: impl Into<String>,
        limit: Duration,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Self {
        let name = name.into();
        let timed = name.clone();
        let trial = Trial::ignorable_test(name, move || {
            let start = Instant::now();
            let outcome = within(hang::on_this_machine(limit), run);
            eprintln!("[{:6.1} s] {timed}", start.elapsed().as_secs_f32());
            completion(outcome)
        });
        Self { trial }
    }
}

/// Number of cases that run at a time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Turns {
    /// One case per CPU, and one more, because cases wait for builds and for guests that sleep.
    Parallel,
    /// One, because the cases share a browser, or use all CPUs themselves.
    Single,
}

/// Runs the cases that these arguments select (`NAME`, `--exact`, `--skip`, `--list`,
/// `--test-threads`), and prints a line for each.
///
/// Cases must only print to standard error. On standard output, a case's lines could not be
/// distinguished from the report.
pub fn run(arguments: Vec<OsString>, turns: Turns, cases: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_iter(arguments);
    arguments.test_threads = match turns {
        Turns::Parallel => arguments.test_threads.or(Some(parallel::workers() + 1)),
        Turns::Single => Some(1),
    };
    let trials = cases.into_iter().map(|case| case.trial).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs `work` on a thread. If it exceeds `limit`, the thread keeps running until the process
/// exits.
fn within(limit: Duration, work: impl FnOnce() -> Result<()> + Send + 'static) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        // Sending fails only if the receiver has timed out.
        let _ = sender.send(work());
    });
    match receiver.recv_timeout(limit) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout) => {
            Err(Error::msg(format!("the case did not end within {} s", limit.as_secs())))
        }
        Err(RecvTimeoutError::Disconnected) => {
            let panic = thread.join().err().unwrap_or_else(|| Box::new("it panicked"));
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(Error::msg(text.unwrap_or("it panicked").to_owned()))
        }
    }
}

fn completion(outcome: Result<()>) -> Result<Completion, Failed> {
    match outcome {
        Ok(()) => Ok(Completion::Completed),
        Err(error) if error.is::<Absent>() => {
            Ok(Completion::ignored_with(format!("{error:#}").replace('\n', " ")))
        }
        Err(error) => Err(format!("{error:#}").into()),
    }
}

/// A component that a case needs and this machine lacks.
#[derive(Clone, Debug)]
pub struct Absent(String);

impl Absent {
    /// Creates a reason to skip a case, which is shown to the user.
    pub fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl Display for Absent {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Absent {}

/// Converts errors from fetching a component into reasons to skip a case.
pub trait OrAbsent<T> {
    /// Names the absent component as the reason to skip the case.
    ///
    /// # Errors
    /// Every error is converted into an [`Absent`], except that of a component that was there and
    /// did not work: the case fails if a program has not succeeded that fetches nothing, or if any
    /// program was ended by a signal.
    fn or_absent(self, what: &str) -> Result<T>;

    /// Returns the reason to skip a case as a value, for cases that share it.
    ///
    /// # Errors
    /// As [`or_absent`](Self::or_absent), without the [`Absent`].
    fn if_present(self, what: &str) -> Result<Result<T, Absent>>;
}

impl<T> OrAbsent<T> for Result<T> {
    fn or_absent(self, what: &str) -> Result<T> {
        self.map_err(|error| match error.downcast_ref::<Unsuccessful>() {
            Some(program) if !program.is_fetch => error.context(what.to_owned()),
            _ => Absent(format!("{what}: {error:#}")).into(),
        })
    }

    fn if_present(self, what: &str) -> Result<Result<T, Absent>> {
        match self.or_absent(what) {
            Ok(value) => Ok(Ok(value)),
            Err(error) => error.downcast().map(Err),
        }
    }
}

/// A value shared by several cases. The first case that needs the value creates it.
#[derive(Debug)]
pub struct Shared<T>(OnceLock<Result<T, Failure>>);

/// Error that is returned to every case that shares the value.
#[derive(Clone, Debug)]
enum Failure {
    Absent(Absent),
    Other(String),
}

impl<T> Shared<T> {
    /// Creates an empty value.
    pub const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// Returns the value, which the first call creates with `make`. An error is also remembered,
    /// and returned by later calls.
    ///
    /// # Errors
    /// Fails if `make` failed, in this call or in an earlier call.
    pub fn get(&self, make: impl FnOnce() -> Result<T>) -> Result<&T> {
        let outcome = self.0.get_or_init(|| {
            make().map_err(|error| match error.downcast::<Absent>() {
                Ok(absent) => Failure::Absent(absent),
                Err(other) => Failure::Other(format!("{other:#}")),
            })
        });
        match outcome {
            Ok(value) => Ok(value),
            Err(Failure::Absent(absent)) => Err(absent.clone().into()),
            Err(Failure::Other(message)) => Err(Error::msg(message.clone())),
        }
    }
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn outcome(run: impl FnOnce() -> Result<()> + Send + 'static) -> String {
        outcome_within(Duration::from_mins(10), run)
    }

    fn outcome_within(
        limit: Duration,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> String {
        match completion(within(limit, run)) {
            Ok(Completion::Completed) => "passed".into(),
            Ok(Completion::Ignored { reason }) => {
                format!("skipped: {}", reason.unwrap_or_default())
            }
            Err(failed) => format!("failed: {}", failed.message().unwrap_or_default()),
        }
    }

    #[test]
    fn only_absent_components_are_skipped() {
        assert_eq!(outcome(|| Ok(())), "passed");
        assert_eq!(outcome(|| bail!("wrong")), "failed: wrong");
        let absent = || Err(Absent::new("no QEMU").into());
        assert_eq!(outcome(absent), "skipped: no QEMU");
        let within = || Err(Error::from(Absent::new("no QEMU")).context("on arm64"));
        assert_eq!(outcome(within), "skipped: on arm64: no QEMU");
    }

    #[test]
    fn a_component_that_breaks_fails_its_case() {
        let run = |program: &'static str, script: &'static str| {
            outcome(move || {
                let folder = crate::temporary::Folder::new()?;
                let program = folder.path().join(program);
                std::os::unix::fs::symlink("/bin/sh", &program)?;
                let mut shell = std::process::Command::new(program);
                crate::process::capture(shell.args(["-c", script])).or_absent("QEMU").map(drop)
            })
        };
        assert!(run("apt-get", "exit 100").starts_with("skipped: QEMU: apt-get"));
        assert!(run("apt-get", "kill -ABRT $$").starts_with("failed: QEMU: apt-get"));
        assert!(run("qemu", "exit 1").starts_with("failed: QEMU: qemu"));
        assert!(run("qemu", "kill -ABRT $$").contains("signal: 6"));
    }

    #[test]
    fn a_case_that_hangs_or_panics_fails() {
        let hangs = || loop {
            thread::park();
        };
        assert_eq!(
            outcome_within(Duration::ZERO, hangs),
            "failed: the case did not end within 0 s"
        );
        assert_eq!(outcome(|| panic!("at {}", 1)), "failed: at 1");
    }

    #[test]
    fn a_shared_result_is_computed_once() {
        let shared = Shared::<u8>::new();
        assert!(shared.get(|| Err(Absent::new("no").into())).unwrap_err().is::<Absent>());
        assert!(shared.get(|| Ok(1)).unwrap_err().is::<Absent>());
        let shared = Shared::new();
        assert_eq!((*shared.get(|| Ok(1)).unwrap(), *shared.get(|| Ok(2)).unwrap()), (1, 1));
    }
}
