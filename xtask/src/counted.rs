//! Runs `cargo test` and counts the results.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::tally::Tally;
use doorbell_harness::process;
use doorbell_harness::workspace::Workspace;

/// Time in which a program must finish at least one more test, or a build must end.
pub(crate) const LIMIT: Duration = Duration::from_mins(40);

/// Runs `cargo test` with these arguments, shows its output and counts its results.
pub(crate) fn test(workspace: &Workspace, arguments: &[&str], tally: &mut Tally) -> Result<()> {
    count_all(process::cargo(&workspace.root).arg("test").args(arguments), LIMIT, tally)
}

/// Runs a `cargo test` command, shows its output and counts the results. The command must print
/// another line, or end, within `silence`.
pub(crate) fn count_all(cargo: &mut Command, silence: Duration, tally: &mut Tally) -> Result<()> {
    let failures_before = tally.failures();
    let status = process::watch_each(cargo, silence, |line| {
        println!("{line}");
        count(line, tally);
    })?;
    if !status.success() && tally.failures() == failures_before {
        tally.fail(format!("cargo test ended with {status}"));
    }
    Ok(())
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

/// Returns the number immediately before `word`, or 0 if there is none.
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
        format!("{tally:?}")
    }

    #[test]
    fn a_harness_that_passes_adds_what_it_passed() {
        let lines = [
            "test a::b ... ok",
            "test result: ok. 12 passed; 0 failed; 3 ignored; 0 measured; 0 filtered out",
        ];
        assert_eq!(tally_of(&lines), "Tally { passed: 12, failed: [], skipped: [] }");
    }

    #[test]
    fn a_failed_test_is_named() {
        let lines = [
            "test a::b ... FAILED",
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured",
        ];
        assert_eq!(tally_of(&lines), r#"Tally { passed: 1, failed: ["a::b"], skipped: [] }"#);
    }

    #[test]
    fn an_ignored_test_is_skipped_with_its_reason() {
        assert_eq!(
            tally_of(&["test qemu ... ignored, no QEMU"]),
            r#"Tally { passed: 0, failed: [], skipped: ["qemu: no QEMU"] }"#
        );
    }

    #[test]
    fn a_reason_may_stand_in_parentheses() {
        assert_eq!(
            tally_of(&[
                "test moves   ... ignored (/dev/kvm cannot be used: no such file (os error 2))"
            ]),
            concat!(
                r#"Tally { passed: 0, failed: [], skipped: ["#,
                r#""moves: /dev/kvm cannot be used: no such file (os error 2)"] }"#,
            )
        );
    }

    #[test]
    fn what_is_no_verdict_counts_nothing() {
        assert_eq!(
            tally_of(&["testing 5 passed", "test"]),
            "Tally { passed: 0, failed: [], skipped: [] }"
        );
    }
}
