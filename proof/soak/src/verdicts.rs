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

/// Marks code that differs from its commit. Slices of such code don't count in a later run.
const CHANGED: &str = " with changes";

/// The verdict on a slice.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    /// The commit that was checked out.
    commit: String,
    /// The Git objects of the code under test. Slices of other code don't count.
    code: String,
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
        part: Part,
        seed: u64,
        requested: u64,
        elapsed: Duration,
        outcome: Option<&Outcome>,
    ) -> Self {
        let seconds = elapsed.as_secs_f64();
        let (passed, outcome) = (outcome.is_some(), outcome.cloned());
        let (commit, code) = (head(), code(part));
        Self { commit, code, part, seed, requested, seconds, passed, outcome }
    }
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

    /// Returns the number of messages in passed slices of a part's current code, and the highest
    /// seed.
    pub(crate) fn passed(&self, part: Part) -> (u64, u64) {
        let code = code(part);
        let is_same = |verdict: &&Verdict| verdict.part == part && verdict.code == code;
        let counts = |verdict: &&Verdict| is_same(verdict) && !verdict.code.ends_with(CHANGED);
        let same: Vec<_> = self.earlier.iter().filter(counts).collect();
        let outcomes = same.iter().filter_map(|verdict| verdict.outcome.as_ref());
        let messages = outcomes.map(|outcome| outcome.messages).sum();
        (messages, same.iter().map(|verdict| verdict.seed).max().unwrap_or(0))
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

/// Returns Git's output, or nothing outside a repository.
fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").current_dir(root()).args(arguments).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    String::from_utf8_lossy(&text.unwrap_or_default()).trim().to_owned()
}

fn head() -> String {
    git(&["rev-parse", "HEAD"])
}

/// Identifies the code that a part tests, by the Git objects of its folders, and by its changes
/// since the commit.
fn code(part: Part) -> String {
    let objects = part.code().iter().map(|folder| {
        let object = git(&["rev-parse", "--short=12", &format!("HEAD:{folder}")]);
        format!("{folder}@{object}")
    });
    let objects = objects.collect::<Vec<_>>().join(" ");
    let changed = [&["diff", "HEAD", "--stat", "--"], part.code()].concat();
    if git(&changed).is_empty() { objects } else { format!("{objects}{CHANGED}") }
}
