//! The verdict file: one JSON object per slice and line.

use crate::outcome::Outcome;
use crate::part::Part;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The code that a part tests, as it was when the run began.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Code {
    /// The commit that is checked out.
    commit: String,
    /// The Git objects of the part's folders and files. `None` outside a repository, or if one of
    /// them differs from its commit; slices of such code don't count in a later run.
    objects: Option<String>,
}

impl Code {
    /// Asks Git for the code of a part.
    pub(crate) fn of(part: Part) -> Self {
        let commit = git(&["rev-parse", "HEAD"]).unwrap_or_default();
        let paths = part.code();
        let objects = paths.iter().map(|path| {
            let object = git(&["rev-parse", "--short=12", &format!("HEAD:{path}")])?;
            Some(format!("{path}@{object}"))
        });
        let objects = objects.collect::<Option<Vec<_>>>().map(|objects| objects.join(" "));
        let changed = [&["status", "--porcelain", "--"], &*paths].concat();
        let is_clean = git(&changed).is_some_and(|changes| changes.is_empty());
        Self { commit, objects: objects.filter(|_| is_clean) }
    }
}

/// The verdict on a slice.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The commit that was checked out.
    commit: String,
    /// The Git objects of the code under test. Slices of other or unknown code don't count.
    code: Option<String>,
    part: Part,
    seed: u64,
    /// Number of messages that were requested.
    requested: u64,
    seconds: f64,
    passed: bool,
    outcome: Option<Outcome>,
}

impl Verdict {
    pub(crate) fn new(
        code: &Code,
        part: Part,
        seed: u64,
        requested: u64,
        elapsed: Duration,
        outcome: Option<&Outcome>,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let (passed, outcome) = (outcome.is_some(), outcome.cloned());
        let Code { commit, objects: code } = code.clone();
        Self { commit, code, part, seed, requested, seconds, passed, outcome }
    }
}

/// Slices that ran before.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Earlier {
    /// Number of messages in passed slices.
    pub(crate) messages: u64,
    /// The highest seed.
    pub(crate) seed: u64,
    /// Number of failed slices.
    pub(crate) failures: u64,
}

/// The verdicts so far.
pub(crate) struct Verdicts {
    file: Option<File>,
    earlier: Vec<Verdict>,
}

impl Verdicts {
    /// Opens or creates the file. Without a path, verdicts are not kept.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else { return Ok(Self { file: None, earlier: Vec::new() }) };
        let shown = path.display();
        let mut earlier = Vec::new();
        if path.exists() {
            for line in BufReader::new(File::open(path)?).lines() {
                let verdict = serde_json::from_str(&line?);
                earlier.push(verdict.with_context(|| format!("{shown} has a bad line"))?);
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self { file: Some(file.with_context(|| format!("cannot open {shown}"))?), earlier })
    }

    /// Returns the earlier slices of a part with the same code.
    pub(crate) fn earlier(&self, part: Part, code: &Code) -> Earlier {
        let is_same = |verdict: &&Verdict| {
            verdict.part == part && code.objects.is_some() && verdict.code == code.objects
        };
        self.earlier.iter().filter(is_same).fold(Earlier::default(), |sum, verdict| Earlier {
            messages: sum.messages + verdict.outcome.as_ref().map_or(0, |passed| passed.messages),
            seed: sum.seed.max(verdict.seed),
            failures: sum.failures + u64::from(!verdict.passed),
        })
    }

    pub(crate) fn add(&mut self, verdict: &Verdict) -> Result<()> {
        if let Some(file) = &mut self.file {
            writeln!(file, "{}", serde_json::to_string(verdict)?)?;
        }
        Ok(())
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Returns Git's output, or `None` if Git fails.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root()).args(arguments).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    Some(String::from_utf8_lossy(&text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slices_of_the_same_code_count() {
        let code = |objects: Option<&str>| Code {
            commit: "c".into(),
            objects: objects.map(str::to_owned),
        };
        let outcome = Outcome { messages: 10, ..Outcome::default() };
        let verdict = |code: &Code, part, seed, outcome| {
            Verdict::new(code, part, seed, 10, Duration::ZERO, outcome)
        };
        let (new, old, unknown) = (code(Some("new")), code(Some("old")), code(None));
        let verdicts = Verdicts {
            file: None,
            earlier: vec![
                verdict(&new, Part::Its, 1, Some(&outcome)),
                verdict(&new, Part::Its, 2, None),
                verdict(&new, Part::Levels, 3, Some(&outcome)),
                verdict(&old, Part::Its, 4, Some(&outcome)),
                verdict(&unknown, Part::Its, 5, Some(&outcome)),
            ],
        };
        let expected = Earlier { messages: 10, seed: 2, failures: 1 };
        assert_eq!(verdicts.earlier(Part::Its, &new), expected);
        assert_eq!(verdicts.earlier(Part::Its, &unknown), Earlier::default());
    }
}
