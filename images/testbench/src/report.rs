//! Results of the tests: a line each, which the runner counts.

use alloc::string::String;
use image_rt::println;

/// Result of a test.
pub(crate) type Outcome = Result<(), Verdict>;

/// Reason for which a test did not pass.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Expected and found values.
    Failed(String),
    /// Missing feature of the machine.
    Skipped(String),
}

impl<E: core::error::Error> From<E> for Verdict {
    fn from(error: E) -> Self {
        Self::Failed(alloc::format!("{error}"))
    }
}

/// Ends a test that found otherwise.
macro_rules! check {
    ($condition:expr, $($otherwise:tt)+) => {
        if !$condition {
            return Err($crate::report::Verdict::Failed(alloc::format!($($otherwise)+)));
        }
    };
}
pub(crate) use check;

/// Ends a test that cannot be tried on this machine.
macro_rules! skip {
    ($($why:tt)+) => { return Err($crate::report::Verdict::Skipped(alloc::format!($($why)+))) };
}
pub(crate) use skip;

/// The count.
#[derive(Debug, Default)]
pub(crate) struct Report {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Report {
    /// Runs a test and prints its line.
    pub(crate) fn case(&mut self, name: &str, test: impl FnOnce() -> Outcome) {
        match test() {
            Ok(()) => {
                self.passed += 1;
                println!("ok - {name}");
            }
            Err(Verdict::Failed(why)) => {
                self.failed += 1;
                println!("not ok - {name}: {why}");
            }
            Err(Verdict::Skipped(why)) => {
                self.skipped += 1;
                println!("skip - {name}: {why}");
            }
        }
    }

    /// Prints the total.
    pub(crate) fn summarize(&self) {
        let Self { passed, failed, skipped } = self;
        println!("total: {passed} passed, {failed} failed, {skipped} skipped");
    }
}
