//! Measurements of the language of this tree: comments, commits, lines, names, circles of files.

pub(crate) mod graph;
mod imports;
mod names;
mod sentences;

use std::process::ExitCode;

use anyhow::Result;

use crate::lint::{openers, width};
use crate::process;
use crate::workspace::Workspace;

/// Longest subject of a commit.
const SUBJECT: usize = 72;

/// Limits of a sentence's words whose shares are printed.
const LONG: [usize; 3] = [25, 30, 40];

/// Prints a table of the measurements; commits count from a revision on. Sentences of more words
/// than `longest` are printed instead, if it is given.
pub(crate) fn run(
    workspace: &Workspace,
    since: Option<&str>,
    longest: Option<usize>,
) -> Result<ExitCode> {
    let sentences = sentences::read(workspace)?;
    if let Some(longest) = longest {
        for sentence in sentences.iter().filter(|sentence| sentence.words > longest) {
            println!("{}: {} words: {}", sentence.place, sentence.words, sentence.text);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let openers = openers::count(workspace)?;
    let share = 100.0 * ratio(openers.questions(), openers.blocks);
    row("comments that open with a question word", &format!("{share:.1} %"));
    let (median, longer) = sentences::summary(&sentences, LONG);
    row("median sentence, words", &median.to_string());
    for (limit, count) in LONG.iter().zip(longer) {
        let share = 100.0 * ratio(count, sentences.len());
        row(&format!("sentences over {limit} words"), &format!("{share:.1} %, {count}"));
    }
    let commits = Commits::read(workspace, since)?;
    row("commits with a body", &format!("{} of {}", commits.with_body, commits.all));
    row(&format!("commit subjects over {SUBJECT} characters"), &commits.long_subjects.to_string());
    let wide = width::check(workspace)?.len();
    row(&format!("lines wider than {} columns", width::MOST), &wide.to_string());
    let names = names::read(workspace)?;
    row("median test name, characters", &names.median_test.to_string());
    let vague: Vec<_> = names.vague.iter().map(|(name, count)| format!("{name} {count}")).collect();
    row("types with a vague name", &vague.join(", "));
    for package in &workspace.packages {
        let circles = graph::circles(package)?;
        row(&format!("circles between files of {}", package.name), &circles.len().to_string());
        for circle in circles {
            println!("  {}", circle.join(", "));
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(measure: &str, value: &str) {
    println!("{measure:44} {value}");
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// Counts of commits.
#[derive(Debug, Default, PartialEq, Eq)]
struct Commits {
    all: usize,
    with_body: usize,
    long_subjects: usize,
}

impl Commits {
    fn read(workspace: &Workspace, since: Option<&str>) -> Result<Self> {
        let range = since.map_or_else(|| "HEAD".to_owned(), |since| format!("{since}..HEAD"));
        let mut git = process::command("git", &workspace.root);
        let log =
            process::capture(git.args(["log", "--no-merges", "--format=%s%x1f%b%x1e", &range]))?;
        Ok(Self::of(&log))
    }

    fn of(log: &str) -> Self {
        let mut commits = Self::default();
        for (subject, body) in log.split('\x1e').filter_map(|commit| commit.split_once('\x1f')) {
            commits.all += 1;
            commits.with_body += usize::from(!body.trim().is_empty());
            commits.long_subjects += usize::from(subject.trim_start().chars().count() > SUBJECT);
        }
        commits
    }
}

#[cfg(test)]
mod test {
    use super::*;

    #[test]
    fn bodies_and_long_subjects_are_counted() {
        let log = format!("a: b\x1fWhy.\n\x1e\nc: d\x1f\x1e\n{}\x1f\n\x1e\n", "e".repeat(73));
        assert_eq!(Commits::of(&log), Commits { all: 3, with_body: 1, long_subjects: 1 });
    }
}
