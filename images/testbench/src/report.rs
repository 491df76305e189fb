//! Test results. Each result is printed as a fact, and the suite counts the facts.

use alloc::string::{String, ToString};
use doorbell_facts::{CheckFact, Fact};
use image_rt::{println, restart};

/// A test of an object.
pub(crate) type Test<T> = fn(T) -> Outcome;

/// Result of a test.
pub(crate) type Outcome = Result<(), Verdict>;

/// Reason why a test did not pass.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// The test failed, with its expected and found values.
    Failed(String),
    /// The machine lacks a feature.
    Skipped(String),
}

impl<E: core::error::Error> From<E> for Verdict {
    fn from(error: E) -> Self {
        Self::Failed(alloc::format!("{error}"))
    }
}

/// Fails the test if the condition is false.
macro_rules! check {
    ($condition:expr, $($otherwise:tt)+) => {
        if !$condition {
            return Err($crate::report::Verdict::Failed(alloc::format!($($otherwise)+)));
        }
    };
}
pub(crate) use check;

/// Skips a test that is not possible on this machine.
macro_rules! skip {
    ($($why:tt)+) => { return Err($crate::report::Verdict::Skipped(alloc::format!($($why)+))) };
}
pub(crate) use skip;

/// Prints a fact on the console.
pub(crate) fn tell(fact: impl Into<Fact>) {
    let fact: Fact = fact.into();
    println!("{fact}");
}

/// Number of tests by outcome, including those of the runs before a restart.
#[derive(Debug)]
pub(crate) struct Report {
    passed: usize,
    failed: usize,
    skipped: usize,
}

impl Report {
    /// Continues the report of the previous run.
    pub(crate) fn new() -> Self {
        let count = |shift: u32| (restart::notes() >> shift & 0xffff) as usize;
        Self { passed: count(0), failed: count(16), skipped: count(32) }
    }

    /// Returns the report for the next run.
    pub(crate) fn notes(&self) -> u64 {
        let Self { passed, failed, skipped } = *self;
        (passed | failed << 16 | skipped << 32) as u64
    }

    /// Runs named tests, all of the same object.
    pub(crate) fn cases<T: Copy>(&mut self, object: T, tests: &[(&str, Test<T>)]) {
        for (name, test) in tests {
            self.case(name, || test(object));
        }
    }

    /// Runs a test and prints its outcome.
    pub(crate) fn case(&mut self, name: &str, test: impl FnOnce() -> Outcome) {
        let check = name.to_string();
        tell(match test() {
            Ok(()) => {
                self.passed += 1;
                CheckFact::Passed { check: check.into() }
            }
            Err(Verdict::Failed(why)) => {
                self.failed += 1;
                CheckFact::failed(check, why)
            }
            Err(Verdict::Skipped(why)) => {
                self.skipped += 1;
                CheckFact::skipped(check, why)
            }
        });
    }

    /// Prints the totals.
    pub(crate) fn summarize(&self) {
        let Self { passed, failed, skipped } = *self;
        tell(CheckFact::Total { passed, failed, skipped });
    }
}
