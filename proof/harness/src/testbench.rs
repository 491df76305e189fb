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
