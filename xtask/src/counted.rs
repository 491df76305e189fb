//! Runs `cargo test` and counts the results.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::tally::Tally;
use doorbell_harness::process;

/// Runs a `cargo test` command, shows its output and counts the results. Fails if the command
/// neither prints a line nor ends for the duration `silence`.
pub(crate) fn count_all(cargo: &mut Command, silence: Duration, tally: &mut Tally) -> Result<()> {
    let failures_before = tally.failures();
    let mut reason = Reason::default();
    let status = process::watch_each(cargo, silence, |line| {
        println!("{line}");
        count(line, tally);
        reason.collect(line, tally);
    })?;
    if !status.success() && tally.failures() == failures_before {
        tally.fail(format!("cargo test ended with {status}"));
    }
    Ok(())
}

/// Number of lines of a failed test's output that the summary shows. The first lines of a panic
/// contain its location and message.
const REASON_LINES: usize = 2;

/// Collects the reasons for failed tests, which test harnesses print after all verdicts.
#[derive(Default)]
struct Reason {
    /// The failed test whose output is being printed.
    test: String,
    /// Number of lines that are still to be collected.
    missing: usize,
}

impl Reason {
    fn collect(&mut self, line: &str, tally: &mut Tally) {
        if let Some(heading) = line.strip_prefix("---- ").and_then(|line| line.strip_suffix("----"))
        {
            let heading = heading.trim_end();
            heading.strip_suffix(" stdout").unwrap_or(heading).clone_into(&mut self.test);
            self.missing = REASON_LINES;
        } else if self.missing > 0 && !line.trim().is_empty() {
            self.missing -= 1;
            tally.explain(&self.test, line.trim());
        }
    }
}

/// Processes a line printed by a test harness, either libtest or one with the same format.
pub(crate) fn count(line: &str, tally: &mut Tally) {
    if let Some(counts) = line.strip_prefix("test result: ") {
        tally.pass(number_before(counts, " passed"));
    } else if let Some((name, verdict)) =
        line.strip_prefix("test ").and_then(|case| case.rsplit_once(" ... "))
    {
        match verdict.split_once([',', ' ']).unwrap_or((verdict, "")) {
            ("FAILED" | "failed", _) => tally.fail(name.trim_end()),
            ("ignored", why) => tally.skip(format!("{}: {}", name.trim_end(), reason(why))),
            _ => {}
        }
    }
}

/// Returns the reason why a test was ignored, which libtest prints after a comma, and libtest-mimic
/// in parentheses.
fn reason(why: &str) -> &str {
    let why = why.trim();
    match why.strip_prefix('(').and_then(|why| why.strip_suffix(')')).unwrap_or(why) {
        "" => "no reason given",
        why => why,
    }
}

/// Returns the number immediately before `word`, or 0 if no number is there.
fn number_before(text: &str, word: &str) -> usize {
    let digits = text
        .find(word)
        .map_or("", |end| text[..end].rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or(""));
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally_of(lines: &[&str]) -> String {
        let mut tally = Tally::default();
        for line in lines {
            count(line, &mut tally);
        }
        format!("{tally:?}").replace("Tally ", "")
    }

    #[test]
    fn passes_are_counted_from_totals_and_failures_from_verdicts() {
        let passed = "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out";
        for (line, tally) in [
            ("test a::b ... ok", "{ passed: 0, failed: [], skipped: [] }"),
            (passed, "{ passed: 12, failed: [], skipped: [] }"),
            ("test a::b ... FAILED", r#"{ passed: 0, failed: ["a::b"], skipped: [] }"#),
            ("testing 5 passed", "{ passed: 0, failed: [], skipped: [] }"),
            ("test", "{ passed: 0, failed: [], skipped: [] }"),
        ] {
            assert_eq!(tally_of(&[line]), tally, "{line}");
        }
    }

    #[test]
    fn a_failed_test_is_reported_with_the_first_lines_of_its_output() {
        let (mut tally, mut reason) = (Tally::default(), Reason::default());
        for line in [
            "test a::b ... FAILED",
            "test c d ... FAILED",
            "failures:",
            "---- a::b stdout ----",
            "",
            "thread 'a::b' panicked at a.rs:1:",
            "left is not right",
            "stack backtrace:",
            "---- c d ----",
            "did not end",
        ] {
            count(line, &mut tally);
            reason.collect(line, &mut tally);
        }
        let failed =
            ["a::b: thread 'a::b' panicked at a.rs:1: left is not right", "c d: did not end"];
        let failed = format!("Tally {{ passed: 0, failed: {failed:?}, skipped: [] }}");
        assert_eq!(format!("{tally:?}"), failed);
    }

    #[test]
    fn an_ignored_test_is_skipped_with_its_reason() {
        let skipped = |why| format!(r#"{{ passed: 0, failed: [], skipped: ["qemu: {why}"] }}"#);
        for (line, why) in [
            ("test qemu ... ignored, no QEMU", "no QEMU"),
            (
                "test qemu   ... ignored (no QEMU: absent (os error 2))",
                "no QEMU: absent (os error 2)",
            ),
            ("test qemu ... ignored", "no reason given"),
        ] {
            assert_eq!(tally_of(&[line]), skipped(why));
        }
    }
}
