//! Counts cases and summarizes them.

use std::process::ExitCode;

use anyhow::Result;

/// The results of a step's cases: passed, failed and skipped, with the reasons.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    passed: usize,
    failed: Vec<String>,
    skipped: Vec<String>,
}

impl Tally {
    pub(crate) fn pass(&mut self, count: usize) {
        self.passed += count;
    }

    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.failed.push(what.into());
    }

    /// Adds a line of output to a failed test's name.
    pub(crate) fn explain(&mut self, test: &str, line: &str) {
        let is_meant = |what: &&mut String| {
            what.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with(": "))
        };
        if let Some(what) = self.failed.iter_mut().find(is_meant) {
            what.push_str(if what.len() == test.len() { ": " } else { " " });
            what.push_str(line);
        }
    }

    /// Counts a case that could not be run here; `why` names the missing component.
    pub(crate) fn skip(&mut self, why: impl Into<String>) {
        self.skipped.push(why.into());
    }

    /// Counts one case by its outcome.
    pub(crate) fn case(&mut self, name: &str, outcome: Result<()>) {
        match outcome {
            Ok(()) => self.pass(1),
            Err(error) => self.fail(format!("{name}: {error:#}")),
        }
    }

    pub(crate) fn failures(&self) -> usize {
        self.failed.len()
    }

    pub(crate) fn cases(&self) -> usize {
        self.passed + self.failed.len() + self.skipped.len()
    }
}

/// A step's name, its results and its seconds.
pub(crate) type Row = (&'static str, Tally, f32);

/// Prints the rows of a summary, the skipped and failed checks, and the total.
pub(crate) fn summarize(rows: &[Row]) -> ExitCode {
    println!("\n{:17} {:>7} {:>7} {:>7} {:>8}", "step", "passed", "failed", "skipped", "seconds");
    for (name, tally, seconds) in rows {
        let (passed, failed, skipped) = (tally.passed, tally.failed.len(), tally.skipped.len());
        println!("{name:17} {passed:7} {failed:7} {skipped:7} {seconds:8.1}");
    }
    for (name, tally, _) in rows {
        tally.skipped.iter().for_each(|why| println!("skipped: {name}: {why}"));
        tally.failed.iter().for_each(|what| println!("FAILED: {name}: {what}"));
    }
    let sum =
        |count: fn(&Tally) -> usize| rows.iter().map(|(_, tally, _)| count(tally)).sum::<usize>();
    let failed = sum(|tally| tally.failed.len());
    let (passed, skipped) = (sum(|tally| tally.passed), sum(|tally| tally.skipped.len()));
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
