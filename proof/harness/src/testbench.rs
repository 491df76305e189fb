//! Results of `images/testbench`, which runs as a machine's only program and as a guest.

use anyhow::{Result, bail, ensure};

/// Results that the test bench reported on its console.
#[derive(Debug, Default)]
pub struct Count {
    /// Number of tests that passed.
    pub passed: usize,
    /// Tests that failed, with expected and found values.
    pub failed: Vec<String>,
    /// Tests that could not be tried, with the reason.
    pub skipped: Vec<String>,
    total: Option<String>,
}

impl Count {
    /// Takes a line of the console into account.
    pub fn line(&mut self, line: &str) {
        if line.starts_with("ok - ") {
            self.passed += 1;
        } else if let Some(failure) = line.strip_prefix("not ok - ") {
            self.failed.push(failure.into());
        } else if let Some(skipped) = line.strip_prefix("skip - ") {
            self.skipped.push(skipped.into());
        } else if let Some(total) = line.strip_prefix("total: ") {
            self.total = Some(total.trim_end().into());
        }
    }

    /// The image came to its end, and skipped tests only for these reasons.
    ///
    /// # Errors
    /// The counts differ, or a skipped test has another reason.
    pub fn complete(&self, reasons: &[&str]) -> Result<()> {
        let Self { passed, failed, skipped, total } = self;
        let counted =
            format!("{passed} passed, {} failed, {} skipped", failed.len(), skipped.len());
        match total {
            Some(total) if *total == counted => {}
            Some(total) => bail!("the image counts {total}, its lines {counted}"),
            None => bail!("the image did not come to its end after {counted}"),
        }
        let lacking = |test: &str| reasons.iter().any(|reason| test.trim_end().ends_with(reason));
        let unexplained: Vec<_> =
            skipped.iter().map(String::as_str).filter(|test| !lacking(test)).collect();
        ensure!(unexplained.is_empty(), "skipped {}", unexplained.join("; "));
        Ok(())
    }
}

#[cfg(test)]
mod test {
    use super::*;

    fn counted(lines: &[&str]) -> Count {
        let mut count = Count::default();
        for line in lines {
            count.line(line);
        }
        count
    }

    #[test]
    fn run_with_its_own_count_is_complete() {
        let count = counted(&[
            "ok - a",
            "note - b",
            "not ok - c: d",
            "total: 1 passed, 1 failed, 0 skipped\r",
        ]);
        assert_eq!(count.failed, ["c: d"]);
        assert!(count.complete(&[]).is_ok());
    }

    #[test]
    fn run_without_a_line_is_incomplete() {
        assert!(counted(&["ok - a"]).complete(&[]).is_err());
        let lost = counted(&["ok - a", "total: 2 passed, 0 failed, 0 skipped"]);
        assert!(lost.complete(&[]).is_err());
    }
}
