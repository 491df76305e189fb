//! The verdict file: one JSON object per part, tested code and line.

use crate::outcome::Outcome;
use crate::part::Part;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
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

/// The verdict on the slices of a part that tested the same code.
#[derive(Debug, Serialize, Deserialize)]
struct Verdict {
    part: Part,
    /// The commit that was checked out.
    commit: String,
    /// The Git objects of the code under test. Slices of other or unknown code don't count.
    code: Option<String>,
    /// The lowest and the highest seed.
    seeds: (u64, u64),
    /// Number of slices that passed, and their sums.
    passed: u64,
    messages: u64,
    counts: BTreeMap<String, u64>,
    /// Seed and requested number of messages of each slice that failed.
    failed: Vec<(u64, u64)>,
    seconds: f64,
}

/// A slice that has ended.
pub(crate) struct Slice {
    pub(crate) part: Part,
    pub(crate) seed: u64,
    /// Number of messages that were requested.
    pub(crate) requested: u64,
    pub(crate) elapsed: Duration,
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
    path: Option<PathBuf>,
    all: Vec<Verdict>,
}

impl Verdicts {
    /// Reads the file if it exists. Without a path, verdicts are not kept.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self> {
        let mut all = Vec::new();
        if let Some(path) = path.filter(|path| path.exists()) {
            for line in fs::read_to_string(path)?.lines() {
                let verdict = serde_json::from_str(line);
                all.push(verdict.with_context(|| format!("{} has a bad line", path.display()))?);
            }
        }
        Ok(Self { path: path.map(Path::to_owned), all })
    }

    /// Returns the earlier slices of a part with the same code.
    pub(crate) fn earlier(&self, part: Part, code: &Code) -> Earlier {
        let is_same = |verdict: &&Verdict| {
            verdict.part == part && code.objects.is_some() && verdict.code == code.objects
        };
        self.all.iter().filter(is_same).fold(Earlier::default(), |sum, verdict| Earlier {
            messages: sum.messages + verdict.messages,
            seed: sum.seed.max(verdict.seeds.1),
            failures: sum.failures + verdict.failed.len() as u64,
        })
    }

    /// Adds a slice, which failed if it has no outcome, and writes the file.
    pub(crate) fn add(
        &mut self,
        code: &Code,
        slice: &Slice,
        outcome: Option<&Outcome>,
    ) -> Result<()> {
        let (part, seed, Code { commit, objects }) = (slice.part, slice.seed, code);
        let is_same = |verdict: &Verdict| {
            verdict.part == part && verdict.commit == *commit && verdict.code == *objects
        };
        let at = self.all.iter().position(is_same).unwrap_or_else(|| {
            let (commit, code, counts) = (commit.clone(), objects.clone(), BTreeMap::new());
            let (passed, messages, failed, seconds) = (0, 0, Vec::new(), 0.0);
            let seeds = (seed, seed);
            let verdict =
                Verdict { part, commit, code, seeds, passed, messages, counts, failed, seconds };
            self.all.push(verdict);
            self.all.len() - 1
        });
        let verdict = &mut self.all[at];
        verdict.seeds = (verdict.seeds.0.min(seed), verdict.seeds.1.max(seed));
        verdict.seconds += slice.elapsed.as_secs_f64();
        match outcome {
            Some(outcome) => {
                verdict.passed += 1;
                verdict.messages += outcome.messages;
                for (name, count) in &outcome.counts {
                    *verdict.counts.entry(name.clone()).or_default() += count;
                }
            }
            None => verdict.failed.push((seed, slice.requested)),
        }
        self.write()
    }

    /// Writes the file beside the old one and renames it, so that a run that is killed keeps one of
    /// both.
    fn write(&self) -> Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        let mut text = String::new();
        for verdict in &self.all {
            text += &serde_json::to_string(verdict)?;
            text.push('\n');
        }
        let new = path.with_added_extension("new");
        let written = fs::write(&new, text).and_then(|()| fs::rename(&new, path));
        written.with_context(|| format!("cannot write {}", path.display()))
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
    fn earlier_totals_include_only_slices_of_the_same_code() {
        let code = |objects: Option<&str>| Code {
            commit: "c".into(),
            objects: objects.map(str::to_owned),
        };
        let outcome = Outcome { messages: 10, ..Outcome::default() };
        let path = std::env::temp_dir().join(format!("verdicts-{}", std::process::id()));
        let (new, old, unknown) = (code(Some("new")), code(Some("old")), code(None));
        for (code, part, seed, outcome) in [
            (&new, Part::Its, 1, Some(&outcome)),
            (&new, Part::Its, 2, None),
            (&new, Part::Levels, 3, Some(&outcome)),
            (&old, Part::Its, 4, Some(&outcome)),
            (&unknown, Part::Its, 5, Some(&outcome)),
        ] {
            let slice = Slice { part, seed, requested: 10, elapsed: Duration::ZERO };
            let mut verdicts = Verdicts::open(Some(&path)).unwrap();
            verdicts.add(code, &slice, outcome).unwrap();
        }
        let verdicts = Verdicts::open(Some(&path)).unwrap();
        fs::remove_file(path).unwrap();
        assert_eq!(verdicts.all.len(), 4);
        let expected = Earlier { messages: 10, seed: 2, failures: 1 };
        assert_eq!(verdicts.earlier(Part::Its, &new), expected);
        assert_eq!(verdicts.earlier(Part::Its, &unknown), Earlier::default());
    }
}
