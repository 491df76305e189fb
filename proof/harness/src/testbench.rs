//! Collects the results of programs that report checks: `images/testbench` (directly on a machine
//! or as a guest), and KVM's judge.

use anyhow::{Context, Result, bail, ensure};
use doorbell_facts::{CheckFact, Fact};

/// The results that a program has reported on its console.
#[derive(Debug, Default)]
pub struct Count {
    /// Number of checks that passed.
    pub passed: usize,
    /// Checks that failed, with expected and found values.
    pub failed: Vec<String>,
    /// Checks that could not be performed, with the reason.
    pub skipped: Vec<String>,
    /// The program's own count of passed, failed and skipped checks, which it reports at its end.
    total: Option<[usize; 3]>,
    /// The last line that is not a fact, such as a panic message.
    last: String,
}

impl Count {
    /// Processes a line of the console.
    pub fn line(&mut self, line: &str) {
        match Fact::parse(line) {
            Some(Fact::Checks(fact)) => self.fact(fact),
            None if !line.trim().is_empty() => self.last = line.trim_end().into(),
            _ => {}
        }
    }

    fn fact(&mut self, fact: CheckFact) {
        match fact {
            CheckFact::Passed { .. } => self.passed += 1,
            CheckFact::Failed { check, why } => self.failed.push(format!("{check}: {why}")),
            CheckFact::Skipped { check, why } => self.skipped.push(format!("{check}: {why}")),
            CheckFact::Total { passed, failed, skipped } => {
                self.total = Some([passed, failed, skipped]);
            }
        }
    }

    /// Checks that the program reached its end, and that each skipped check has one of these
    /// reasons.
    ///
    /// # Errors
    /// Fails if the program's count is zero or differs from the number of its lines, or if a
    /// skipped check has another reason.
    pub fn complete(&self, reasons: &[&str]) -> Result<()> {
        let counted = [self.passed, self.failed.len(), self.skipped.len()];
        match self.total {
            Some(total) if total == counted => {}
            Some(total) => {
                bail!("the program counts {}, but its lines show {}", shown(total), self.shown())
            }
            None => bail!(
                "the program did not reach its end after {}; its last line is `{}`",
                self.shown(),
                self.last
            ),
        }
        ensure!(counted != [0; 3], "the program made no checks");
        let lacking = |check: &str| reasons.iter().any(|reason| check.ends_with(reason));
        let unexplained: Vec<_> =
            self.skipped.iter().map(String::as_str).filter(|check| !lacking(check)).collect();
        ensure!(unexplained.is_empty(), "skipped {}", unexplained.join("; "));
        Ok(())
    }

    /// Checks that the run ended without an error, that no check failed, and that the results are
    /// [`complete`](Self::complete).
    ///
    /// # Errors
    /// The error names each failed check, and other problems.
    pub fn verdict(&self, ended: Result<()>, reasons: &[&str]) -> Result<()> {
        let mut faults = self.failed.clone();
        let ended = ended.with_context(|| format!("after {}", self.shown()));
        if let Err(error) = ended.and_then(|()| self.complete(reasons)) {
            faults.push(format!("{error:#}"));
        }
        ensure!(faults.is_empty(), "{}", faults.join("\n"));
        Ok(())
    }

    /// Returns the numbers of checks as text.
    pub fn shown(&self) -> String {
        shown([self.passed, self.failed.len(), self.skipped.len()])
    }
}

fn shown([passed, failed, skipped]: [usize; 3]) -> String {
    format!("{passed} passed, {failed} failed, {skipped} skipped")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(check: &'static str) -> CheckFact {
        CheckFact::Passed { check: check.into() }
    }

    fn total(passed: usize, failed: usize, skipped: usize) -> CheckFact {
        CheckFact::Total { passed, failed, skipped }
    }

    fn counted(facts: &[CheckFact]) -> Count {
        let mut count = Count::default();
        for fact in facts {
            count.line(&format!("{}\r", Fact::from(fact.clone())));
        }
        count
    }

    #[test]
    fn a_run_without_a_required_fact_is_incomplete() {
        assert!(counted(&[passed("a")]).complete(&[]).is_err());
        assert!(counted(&[passed("a"), total(2, 0, 0)]).complete(&[]).is_err());
        assert!(counted(&[total(0, 0, 0)]).complete(&[]).is_err());
    }

    #[test]
    fn a_check_skipped_for_an_unexpected_reason_fails() {
        let count = counted(&[CheckFact::skipped("a", "no ITS"), total(0, 0, 1)]);
        assert!(count.complete(&["no ITS"]).is_ok());
        let error = count.complete(&["no GICv3"]).unwrap_err();
        assert_eq!(error.to_string(), "skipped a: no ITS");
    }

    #[test]
    fn the_error_names_each_failed_check_and_the_last_line() {
        let mut count =
            counted(&[CheckFact::failed("a", "b"), passed("c"), CheckFact::failed("d", "e")]);
        count.line("not ok - the image: panicked\r");
        count.line("");
        let error = count.verdict(Ok(()), &[]).unwrap_err().to_string();
        let incomplete = "the program did not reach its end after 1 passed, 2 failed, 0 skipped; \
                          its last line is `not ok - the image: panicked`";
        assert_eq!(error, format!("a: b\nd: e\n{incomplete}"));
        let late = counted(&[passed("a"), total(1, 0, 0)]).verdict(bail(), &[]);
        let late = late.unwrap_err().to_string();
        assert_eq!(late, "after 1 passed, 0 failed, 0 skipped: QEMU ended");
    }

    fn bail() -> Result<()> {
        bail!("QEMU ended")
    }
}
